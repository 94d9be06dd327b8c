"""What the notebooks answer to a guess: "Predict, then run"."""

from numbers import Real


def answer_guess(guess: object, measured: float | str, unit: str = "") -> None:
    """Print what was measured beside the learner's guess; ... is no guess yet.

    A word must be the same. A number is right within a tenth of what was measured.
    """
    is_word = isinstance(measured, str)
    shown = f"It is {measured if is_word else format(measured, '.4g')} {unit}".rstrip() + "."
    if guess is ...:
        print(f"… {shown} Next time, first replace the ... with your guess.")
    elif not isinstance(guess, str if is_word else Real):
        print(f"… {shown} Your guess is not {'a word in quotes' if is_word else 'a number'}.")
    elif is_word:
        print("✓" if guess.strip().lower() == measured.lower() else "✗", shown)
    else:
        near = abs(guess - measured) <= abs(measured) / 10
        verdict = "right" if near else "too high" if guess > measured else "too low"
        print(f"{'✓' if near else '✗'} You guessed {guess:g}: {verdict}. {shown}")
