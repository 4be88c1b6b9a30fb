"""How each stage of InstructGPT is done: a folder is a stage, or a wing that several stages share.

Stages, in the order of the paper: ``data_prep``, ``pretrain`` or ``adopt``, ``sft`` (used twice: the baseline and the start
of PPO), ``comparisons``, ``reward_model``, ``ppo`` and its rivals ``dpo`` and ``rejection_sampling``, ``measure``,
``compare``, ``gate``, ``release``. ``sandbox`` is no stage: it is the embedded world, with its gold labeler.

Shape legend used everywhere: B sequences, K ranked responses, P prompt width, R response width, T = P + R,
V vocabulary, D hidden, N packed rows or candidates of a prompt, L length of a packed row, W the widest response of an
iteration (R of a micro-batch is at most W), M ranked pairs, G prompts that have k responses each.
"""
