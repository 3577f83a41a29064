"""`runtime.tokenization` under the name by which the adapters of format 1 import it; see docs/compatibility.md."""

from verdictree.runtime.tokenization import ConversationTokenizer

__all__ = ["ConversationTokenizer"]
