"""Tasks on which a smaller model loses before its perplexity says so, after LLM-KICK (Jaiswal et al., arXiv 2310.01382).

Written afresh over generated questions: knowledge without a book and with one, a choice among answers, and generation.
No judge is asked, and an empty reply is never right.
"""
