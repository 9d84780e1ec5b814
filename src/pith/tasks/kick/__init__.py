"""Tasks on which a smaller model loses before its perplexity says so.

After LLM-KICK (Jaiswal et al., arXiv 2310.01382), written afresh over generated questions: knowledge by recall and by
choice, reasoning, retrieval from a text, and long replies. No judge is asked, and an empty reply is never right.
"""
