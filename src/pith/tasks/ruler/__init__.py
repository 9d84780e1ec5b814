"""The 13 tasks of RULER (Hsieh et al., arXiv 2404.06654), under its names.

Written afresh, in the small language of `pith.tasks.generate` where that can say it. What differs in all of them:
prompts are completed, without instructions and worked examples; numbers have four digits (RULER: seven); a part of an
answer must stand in the reply as a word of its own (RULER: anywhere in it).
"""
