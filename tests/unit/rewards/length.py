"""A reward of a user's own."""


def score(prompts: list[str], responses: list[str]) -> list[float]:
    return [float(len(response.split())) for response in responses]
