"""A scalar head trained on rankings."""

from tasks.engine.declared import Stage

validate_across_labelers = Stage(
    "reward model across labelers", "tasks.reward_model.across_labelers:validate_across_labelers", gpus=1
)
ask_questions = Stage("reward model on questions", "tasks.reward_model.questions:ask_questions", gpus=1)
train_reward_model = Stage("reward model", "tasks.reward_model.task:train_reward_model", cpus=2, gpus=1, divided=True)
validate_reward_model = Stage("reward model on new responses", "tasks.reward_model.task:validate_reward_model", gpus=1)
