"""A toy chapter (number 90), so that the machinery is tested without any real one, in real kernels too.

Kernels import this module by name (PYTHONPATH holds the tests folder) and call `register()`.
"""

import pytest
import torch

from compresslab.course.chapters import CHAPTERS
from compresslab.course.exercise import Chapter, Exercise, Mistake, Option, Prediction, Question


def keep_largest(values, k):
    order = values.abs().argsort(descending=True, stable=True)
    mask = torch.zeros(len(values), dtype=torch.bool)
    mask[order[:k]] = True
    return mask


def prune(values, k):
    return values * keep_largest(values, k)


def verify_keep_largest(t):
    for n in (1, 3, 8):
        for k in (0, 1, n):
            values = t.randn(n)
            mask = t.tensor(t.call(values, k), shape=(n,), dtype=torch.bool)
            t.expect(mask.sum() == k, f"the mask keeps {int(mask.sum())} values, not {k}")
    for values in (torch.tensor([1.0, -2.0]), t.randn(7), -t.randn(6).abs() - 1):
        mask = t.call(values, 1)
        t.expect(
            values[mask].abs().min() >= values[~mask].abs().max(), "a kept value is smaller than a pruned one"
        )
    return "counts and order on twelve inputs"


def verify_prune(t):
    for n in (2, 5):
        values = t.randn(n)
        t.close(t.call(values, 1), t.reference(values, 1), "the pruned values")
    return "two inputs"


def kept_smallest(values, k):
    mask = torch.zeros(len(values), dtype=torch.bool)
    mask[values.abs().argsort()[:k]] = True
    return mask


def forgot_abs(values, k):
    mask = torch.zeros(len(values), dtype=torch.bool)
    mask[values.argsort(descending=True)[:k]] = True
    return mask


def float_mask(values, k):
    return keep_largest(values, k).float()


def pruned_in_place(values, k):
    values *= keep_largest(values, k)
    return values


def with_topk(values, k):
    chosen = values.abs().topk(k).indices.tolist()
    return torch.tensor([i in chosen for i in range(len(values))])


def verify_ratio(t):
    t.close(t.number(t.value), 8.0, "the ratio")
    return "32 bits over 4 bits"


EXERCISES = (
    Exercise(
        id="90.1",
        name="keep_largest",
        title="Keep the largest",
        misconception="small is negative",
        reference=keep_largest,
        verify=verify_keep_largest,
        alternatives=(with_topk,),
        workshop=True,
        points=3,
        mistakes=(
            Mistake("kept the smallest", kept_smallest, "you kept the smallest values"),
            Mistake("forgot abs", forgot_abs, "you ordered by the signed value"),
            Mistake("float mask", float_mask, "a mask is boolean"),
        ),
        hints=("Sort by size.", "k largest |v|", "order = ...\nmask = ..."),
    ),
    Exercise(
        id="90.2",
        name="prune",
        title="Prune",
        misconception="pruning works in place",
        reference=prune,
        verify=verify_prune,
        mistakes=(
            Mistake("in place", pruned_in_place, "you changed the values that were given to you"),
            Mistake(
                "pruned the largest",
                lambda values, k: values * ~keep_largest(values, k),
                "you pruned what you should keep",
            ),
            Mistake(
                "ones",
                lambda values, k: keep_largest(values, k).float(),
                "you returned the mask, not the values",
            ),
        ),
        hints=("Multiply.", "v * m", "return ..."),
    ),
    Exercise(
        id="90.3",
        name="ratio",
        title="The ratio",
        misconception="bits add",
        reference=8.0,
        verify=verify_ratio,
        value=True,
        mistakes=(
            Mistake("inverse", 0.125, "that is the inverse"),
            Mistake("percent", 800, "a ratio, not percent"),
            Mistake("difference", lambda: 28, "a ratio, not a difference"),
            Mistake("below one", 0.5, "a compression ratio above one is smaller", when=lambda v: 0 < v < 1),
        ),
        alternatives=(8, lambda: torch.tensor(8.0)),
        hints=("Divide.", "dense / compressed", "32 / ..."),
    ),
)
QUESTIONS = (
    Question(
        "90.q1",
        "Why is a masked network not smaller?",
        (
            Option(
                "dense",
                "A zero takes as many bits as any number",
                "Yes: a dense tensor stores every zero.",
                correct=True,
            ),
            Option("few", "Too few zeros", "Zeros are stored whatever their number."),
            Option("zip", "It was not zipped", "The tensor in memory is not a file."),
        ),
    ),
)
PREDICTIONS = (
    Prediction("90.p1", "How many times smaller?", unit="x", log=True),
    Prediction("90.p2", "How many points?", unit="points"),
)
CHAPTER = Chapter(
    number="90", slug="toy", title="Toy", exercises=EXERCISES, questions=QUESTIONS, predictions=PREDICTIONS
)

SOURCE = '''# %% [markdown]
# # A toy
# {{exercise 90.1}}
# Write `keep_largest`.

# %%
import torch
import toy_chapter
toy_chapter.register()
from compresslab.course import answer, check, predict, reveal

# %%
def keep_largest(values, k):
    """A boolean mask of the k largest values by size."""
    ### BEGIN SOLUTION
    order = values.abs().argsort(descending=True, stable=True)
    mask = torch.zeros(len(values), dtype=torch.bool)
    mask[order[:k]] = True
    return mask
    ### END SOLUTION

# %%
keep_largest = check("90.1", keep_largest)

# %% [markdown]
# {{exercise 90.2}}

# %%
def prune(values, k):
    """The values, all but the k largest set to zero."""
    ### BEGIN SOLUTION
    return values * keep_largest(values, k)
    ### END SOLUTION

# %%
prune = check("90.2", prune)

# %% [markdown]
# {{exercise 90.3}}

# %%
### BEGIN SOLUTION
ratio = 32 / 4
### END SOLUTION

# %%
ratio = check("90.3", ratio)

# %% [markdown]
# {{question 90.q1}}

# %%
### BEGIN SOLUTION
q1 = "LETTER"
### END SOLUTION

# %%
q1 = answer("90.q1", q1)

# %% [markdown]
# {{prediction 90.p1}}

# %%
### BEGIN SOLUTION
p1 = (4, 10)
### END SOLUTION

# %%
p1 = predict("90.p1", p1)

# %%
measured = reveal("90.p1", ratio)
print(prune(torch.tensor([1.0, -3.0, 2.0]), 1))
'''.replace("LETTER", QUESTIONS[0].letter)


def register():
    """Make the toy chapter findable in this process."""
    CHAPTERS["90"] = "toy_chapter:CHAPTER"


@pytest.fixture(autouse=True)
def toy(tmp_path, monkeypatch):
    """The toy chapter, registered, and a learner's folder of its own; no mode set from outside."""
    monkeypatch.setitem(CHAPTERS, "90", "toy_chapter:CHAPTER")
    for name in ("COMPRESSLAB_STRICT", "COMPRESSLAB_STATIC", "COMPRESSLAB_QUICK", "NBGRADER_EXECUTION", "CI"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    monkeypatch.setenv("COMPRESSLAB_HOME", str(home))
    return home


@pytest.fixture
def toy_root(tmp_path):
    """A course folder with the toy chapter's text."""
    root = tmp_path / "course"
    for name in ("solutions", "notebooks"):
        (root / name).mkdir(parents=True)
    (root / "solutions" / "90_toy.py").write_text(SOURCE)
    return root
