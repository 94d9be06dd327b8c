"""What the notebooks answer to a guess: "Predict, then run"."""

from numbers import Real


def answer_guess(guess: object, measured: float | str, unit: str = "") -> None:
    """Print what was measured beside the learner's guess: a number or a word; ... is none yet."""
    if isinstance(measured, str):
        kind, shown = str, measured
    else:
        kind, shown = Real, f"{measured:.4g} {unit}".strip()
    if guess is ...:
        print(f"… It is {shown}. Next time, first replace the ... with your guess.")
    elif not isinstance(guess, kind):
        wanted = "a word in quotes" if kind is str else "a number"
        print(f"… It is {shown}. Your guess is no answer to compare: {wanted} is wanted.")
    elif kind is str:
        right = guess.strip().lower() == measured.lower()
        print(f"{'✓' if right else '✗'} You guessed {guess.strip()}. It is {shown}.")
    else:
        near = abs(guess - measured) <= abs(measured) / 10
        verdict = "within a tenth" if near else "too high" if guess > measured else "too low"
        print(f"{'✓' if near else '✗'} You guessed {guess:g}: {verdict}. It is {shown}.")
