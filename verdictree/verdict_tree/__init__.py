"""The verdict tree, and how likely each answer in it is: numpy, and nothing that computes a model.

    spelling.py      how a tokenizer spells a grammar's answers; refuses what it cannot tell apart
        ↓
    compiler.py      ─► tree.py: the answers as three tries (trie.py), drawn there; onward.py: what may follow a path
        ↓
    exploration.py   how far the graph follows the tree, and the layout of what it hands over
        ↓            (questions.py: a request that asks about one category at a time, as one row and as several)
    marginals.py     log-probabilities at the tries' nodes → estimates.py: each category's (arXiv 2511.22312)
    greedy.py        the same numbers → what greedy decoding would have written
                     (next_labels.py: the matrices that both multiply with)

The export compiles a tree and lays its nodes out as the graph's tokens. The runtime unpacks the graph's outputs and
asks `Marginalizer`. Neither is imported here: this room uses `verdictree.families` and the words of `verdictree` alone.
"""
