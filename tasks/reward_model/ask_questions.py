"""Questions of a file, asked of the trained reward model, as a task."""

from pathlib import Path

from tasks.engine.artifacts import write_json
from tasks.engine.caching import stage
from tasks.engine.stage import Metrics, Workshop
from tasks.language.batches import microbatches, pad_batch
from tasks.language.models import ScalarModel, autocast
from tasks.language.named_layout import laid_out
from tasks.language.text import encode_prompt, encode_response
from tasks.records.data import PreparedData
from tasks.reward_model.best_of_many import Question, accuracy_by_subset, ties
from tasks.reward_model.job import QuestionsJob
from tasks.reward_model.question_files import TIES, QuestionRow, read_questions


@stage("reward model on questions", cpus=1, gpus=1)
def ask_questions(shop: Workshop, config: QuestionsJob) -> Metrics:
    """Share of questions whose right answer scores highest, by subset, and how equally right answers are treated."""
    rows = read_questions(Path(config.file).expanduser())
    model = ScalarModel.load(shop.input("reward_model") / "model", shop.runtime.device).eval()
    questions = scored(rows, model, shop, config)
    accuracy = accuracy_by_subset([question for question in questions if question.subset != TIES])
    metrics = {f"questions/accuracy_{subset.lower().replace(' ', '_')}": found for subset, found in accuracy.items()}
    found = ties([question for question in questions if question.subset == TIES])
    parts = list(accuracy.values())
    if found is not None:
        metrics |= {
            f"questions/ties_{name}": float(value) for name, value in found._asdict().items() if name != "questions"
        }
        metrics["questions/ties_score"] = found.score
        parts.append(found.score)
    if parts:
        metrics["questions/mean_of_subsets"] = sum(parts) / len(parts)
    write_json(shop.folder / "questions.json", metrics | {"questions": len(rows)})
    shop.log.file(shop.folder / "questions.json")
    return metrics


def scored(rows: list[QuestionRow], model: ScalarModel, shop: Workshop, config: QuestionsJob) -> list[Question]:
    """Score every answer to every question, each once."""
    tokenizer = PreparedData(shop.input("data")).tokenizer()
    texts = laid_out([row.prompt for row in rows], config.prompt_layout, tokenizer)
    prompts, answers = [], []
    for row, text in zip(rows, texts, strict=True):
        ids = encode_prompt(tokenizer, text, config.prompt_tokens)
        for answer in (*row.chosen, *row.rejected):
            prompts.append(ids)
            answers.append(encode_response(tokenizer, answer, text)[: config.response_tokens])
    scores = [0.0] * len(answers)
    lengths = [len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)]
    for places in microbatches(lengths, shop.runtime.tokens_per_microbatch):
        batch = pad_batch([prompts[at] for at in places], [answers[at] for at in places], int(tokenizer.pad_token_id))
        with autocast(shop.runtime):
            found = model.scores(batch.to(shop.runtime.device)).detach().float().tolist()
        for at, score in zip(places, found, strict=True):
            scores[at] = score
    left = iter(scores)
    return [
        Question(row.id, row.subset, [next(left) for _ in row.chosen], [next(left) for _ in row.rejected])
        for row in rows
    ]
