"""What the notebooks answer to a guess: "Predict, then run"."""

from numbers import Real

from seqlm.exercises.checker import translated


def answer_guess(guess: object, measured: float | str, unit: str = "") -> None:
    """Print what was measured beside the learner's guess; ... is no guess yet.

    A word must be the same. A number is right within a tenth of what was measured.
    """
    is_word = isinstance(measured, str)
    value = measured if is_word else format(measured, ".4g")
    shown = translated(f"It is {f'{value} {unit}'.rstrip()}.")
    if guess is ...:
        line = f"… {shown} Next time, first replace the ... with your guess."
    elif not isinstance(guess, str if is_word else Real):
        line = f"… {shown} Your guess is not {'a word in quotes' if is_word else 'a number'}."
    elif is_word:
        line = f"{'✓' if guess.strip().lower() == measured.lower() else '✗'} {shown}"
    elif abs(guess - measured) <= abs(measured) / 10:
        line = f"✓ You guessed {guess:g}: right. {shown}"
    else:
        verdict = "too high" if guess > measured else "too low"
        line = f"✗ You guessed {guess:g}: {verdict}. {shown}"
    print(translated(line))
