"""The verdict tree, and how likely each answer in it is: numpy, and nothing that computes a model.

    spelling.py      how a tokenizer spells a grammar's answers; refuses what it cannot tell apart
        ↓
    tree.py          the answers as tries of tokens, compiled once at the export
        ↓
    exploration.py   how far the graph follows the tree, and the layout of what it hands over
        ↓
    marginals.py     log-probabilities at the trie's nodes → probability of each category (arXiv 2511.22312)
    greedy.py        the same numbers → what greedy decoding would have written

The export compiles a tree and lays its nodes out as the graph's tokens. The runtime unpacks the graph's outputs and
asks `Marginalizer`. Neither is imported here: this room uses `verdictree.families` and the words of `verdictree` alone.
"""
