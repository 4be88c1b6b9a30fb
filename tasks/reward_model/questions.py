"""Questions of a file, asked of the trained reward model, as a task."""

from pathlib import Path

from tasks.engine.artifacts import write_json
from tasks.engine.stage import Metrics, Workshop
from tasks.language.models import ScalarModel
from tasks.language.named_layout import laid_out
from tasks.language.scorer import score_rows
from tasks.language.text import encode_prompt, encode_response
from tasks.records.data import PreparedData
from tasks.reward_model.best_of_many import ScoredQuestion, accuracy_by_subset, ties
from tasks.reward_model.job import QuestionsJob
from tasks.reward_model.question_files import TIES, QuestionRow, read_questions


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


def scored(rows: list[QuestionRow], model: ScalarModel, shop: Workshop, config: QuestionsJob) -> list[ScoredQuestion]:
    """Score every answer to every question, each once."""
    tokenizer = PreparedData(shop.input("data")).tokenizer()
    texts = laid_out([row.prompt for row in rows], config.prompt_layout, tokenizer)
    prompts, answers = [], []
    for row, text in zip(rows, texts, strict=True):
        ids = encode_prompt(tokenizer, text, config.prompt_tokens)
        for answer in (*row.chosen, *row.rejected):
            prompts.append(ids)
            answers.append(encode_response(tokenizer, answer, text)[: config.response_tokens])
    scores = score_rows(model, prompts, answers, int(tokenizer.pad_token_id), shop.runtime)
    left = iter(scores)
    return [
        ScoredQuestion(row.id, row.subset, [next(left) for _ in row.chosen], [next(left) for _ in row.rejected])
        for row in rows
    ]
