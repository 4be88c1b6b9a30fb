"""A small embedded world: text, prompts, demonstrators, labelers and a gold judge that can be computed.

Everything here is pure Python and a function of a seed, so that the whole method can be studied without a network, a
labelling budget or a GPU. `world` holds the facts; `corpus` writes pretraining text about them; `prompts` and
`demonstrations` stand for customers and demonstrators; `gold` is the utility nobody in the pipeline may see except the
evaluation; `labelers` see it through noise; `benchmarks` and `safety` test what tuning may break.
"""
