"""Who says which response is better.

A score judge (``scores``: gold labeler, reward model, a second reward model) gives every response a number. A pair judge
(``chat``: a chat model, ``humans``: a file of verdicts) sees two responses at once. ``interface`` is what both promise.
"""
