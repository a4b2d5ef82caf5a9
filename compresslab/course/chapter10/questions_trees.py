"""Questions 10.q1 to 10.q3 and predictions 10.p1 and 10.p2."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="10.q1", prompt="On the digits, with the same number of leaves, the pruned tree makes fewer mistakes than the one with a depth limit. Why?", options=(
        Option("where", "It keeps a deep branch where the questions pay, and has a leaf early where they do not; a limit cuts both at the same level",
               "Yes. Look at the drawn tree: what is left is lopsided. And it looked before it cut: the full tree was grown first, so a split that gains little by "
               "itself but prepares a good one below is still there when the branch is judged.", correct=True),
        Option("deeper", "It is deeper, and deeper trees are better",
               "Depth by itself is nothing: the full tree is the deepest of all, and no better. What counts is *where* it is deep."),
        Option("overfit", "The limit makes a tree overfit, the pruning does not",
               "With as many leaves both have as many parameters. A tree of few leaves, of either kind, fits its training set badly rather than too well."),
        Option("validation", "The path was chosen on validation data, the depth was not",
               "The path was computed from the risks on the training set alone; only *one point of it* is ever chosen by validation. Here both had the same number of leaves."))),
    Question(id="10.q2", prompt="Synthetic points have no true labels. How can they teach a tree anything about digits?", options=(
        Option("function", "They show where the forest's borders run between the real points; the forest has averaged a hundred trees, and that is knowledge that "
                           "single labels do not hold",
               "Yes. A tree that is grown on a thousand points must guess where to cut between them, and each guess is taken from few points. The forest's average "
               "of many guesses is better, and queries make it visible, as densely as you like.", correct=True),
        Option("more", "More data are always better, whatever the labels say",
               "With random labels they would be useless. They help as far as the forest is right where they lie, and as far as they lie where test points do."),
        Option("soft", "Only because the labels are soft: shares tell more than classes",
               "Look at the figure: hard labels of the same queries help as well. And soft labels of the training points alone hardly help."),
        Option("memory", "The tree can memorise the queries, so it has seen the test set",
               "The test points were never queried. Each query was made from training points only."))),
    Question(id="10.q3", prompt="A paper says: \"our forest is 25 times smaller\". Its baseline was the dumped object of a library. What do you make of it?", options=(
        Option("ruler", "Perhaps nothing was compressed: leaving out what no prediction reads may give most of that by itself. The baseline must be stored as "
                        "reasonably as the result",
               "Yes. In your table the same 100 trees shrank several times before any method began. A ratio is only as honest as its larger number.", correct=True),
        Option("fine", "It is right: the dump is what a user has on disk",
               "It is what *this* library writes for going on with the work: training statistics, double precision, two children for each node. Another library's dump "
               "of the same forest has another size, and so the method would have another ratio."),
        Option("zip", "It is right, if the dump was zipped first",
               "Zip sees repetitions, not what a prediction needs. It makes the baseline smaller and still arbitrary."),
        Option("accuracy", "Size does not matter, as long as accuracy is the same",
               "On a microcontroller with 32 kB of flash it decides whether there is a model at all (section 8)."))),
)

PREDICTIONS = (
    Prediction(id="10.p1", prompt="A tree is grown on the training points with their true labels; then again on the same points with the forest's answers (classes) as labels. By how many "
               "percentage points does its agreement with the forest on test points rise?", unit="points"),
    Prediction(id="10.p2", prompt="How many times larger is the dumped object of the forest of 100 trees than the arrays that its predictions read, reasonably stored?", unit="times", log=True),
)
