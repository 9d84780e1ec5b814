"""The 13 tasks of RULER (Hsieh et al., arXiv 2404.06654), under its names.

Each prompt has the parts of RULER's template, in its order: an instruction, a worked example where RULER has one (vt,
cwe), the context, the question and the beginning of the answer. RULER's templates are in its repository
(github.com/NVIDIA/RULER, scripts/data/synthetic/constants.py, Apache-2.0).

Deviates in all of them: the sentences are Pith's own, not RULER's; a part of an answer must stand in the reply as a
word of its own (RULER: anywhere in it); a reply has at most twice the answer's tokens (RULER: 30 to 128, by task).

In the language "pith" prompts are completed without instruction and worked example, and numbers have four digits.
"""
