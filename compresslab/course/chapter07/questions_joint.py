"""Questions 7.q4 to 7.q7 and predictions 7.p3 to 7.p5."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="7.q4", prompt="Without the dual step, w and z stop where the loss pulls w exactly as hard away from z as the penalty pulls it back. What does u do about it?", options=(
        Option("sum", "It adds up the differences that are left, so the pull grows until none is left; at rest, rho u is the force that the constraint needs",
               "Yes: rho u is the Lagrange multiplier, found by adding up. A penalty alone would need an infinite rho for the same, and then nothing moves any more.", correct=True),
        Option("rho", "It makes rho larger from step to step",
               "rho stays what it was. (The learning-compression algorithm raises a factor like it, slowly, *and* has multipliers.)"),
        Option("momentum", "It is a momentum: it makes the same way faster",
               "A momentum changes how quickly one arrives. Without u one arrives somewhere else."),
        Option("noise", "It shakes z out of bad local optima",
               "Nothing here is random. On sets that are not convex the running sum does make z leave a support that costs too much, but that is an effect of the pull."))),
    Question(id="7.q5", prompt="In 48,000 bytes, a little of both leaves less of fc2 than nonzeros alone, and less than a low rank alone. Why?", options=(
        Option("returns", "Both have falling returns: the first directions and the first entries buy the most, and they are different things, so the best bargains of both lists come first",
               "Yes. A direction pays where many weights share something, an entry where one stands out. Without entries that stand out, or without shared directions, there would be "
               "nothing to mix.", correct=True),
        Option("rank", "Because the sum of the two has a higher rank than the low-rank part alone, and a higher rank is always nearer",
               "Nonzeros alone have a higher rank still, nearly always the full one, and leave more."),
        Option("svd", "Because the SVD is only optimal for square matrices",
               "Eckart and Young ask for no shape. For its rank it is optimal; the sum plays another game."),
        Option("steps", "Because the sum takes several steps, so it has more time to fit",
               "Each of the two alone is optimal after one step. More steps would not change them."))),
    Question(id="7.q6", prompt="\"Prune, quantize, decompose, distil\" and \"decompose, distil, prune, quantize\": the same four operations, equally strong. Why are their files so different?", options=(
        Option("destroys", "Decomposing makes new weights, factors that are neither sparse nor shared. What was done before to the old ones is gone",
               "Yes. An operation can undo the *structure* that an earlier one made. Put those that make new weights first, those that mark the weights that are stored last.", correct=True),
        Option("training", "The later an operation, the less training follows it, so the worse the network",
               "True for the accuracy, a little. It says nothing of the bytes."),
        Option("ratios", "They are not: ratios multiply, and a product does not depend on the order",
               "Then the files above would be equal. Ratios multiply only where both structures survive."),
        Option("rank", "A sparse matrix has a lower rank, so it can be decomposed further",
               "A matrix that is 80 % zeros at random places nearly always has full rank."))),
    Question(id="7.q7", prompt="The integer program is exactly optimal, and yet evolution may end higher. How can that be?", options=(
        Option("sum", "It is optimal for the *sum* of single-layer errors. The whole network's loss is no such sum, and evolution asks the whole network",
               "Yes: exact on a model of the problem. That is why the integer program's answer is a good place for evolution to start from.", correct=True),
        Option("luck", "It cannot, unless the solver has a bug",
               "It solves its problem exactly, as enumeration shows. The question is which problem."),
        Option("budget", "Evolution may break the budget a little",
               "Every candidate is clipped or refused. Both files keep it."),
        Option("continuous", "Evolution may choose settings between those of the table",
               "Both choose from the same table."))),
)

PREDICTIONS = (
    Prediction(id="7.p3", prompt="100 random problems with 10 correlated weights, of which 4 may stay. Projecting the dense solution names the best of the 210 supports in fewer than half of them; "
                                 "ADMM with a good rho in how many of the 100?", unit="of 100"),
    Prediction(id="7.p4", prompt="Same network, same four operations, same strengths, in all 24 orders. How many times larger is the largest file than the smallest?",
               unit="x", log=True),
    Prediction(id="7.p5", prompt="One byte budget for the file of ResNet-8. Against the best *single* setting (sparsity, bits) for all layers, how many points of accuracy does the best search gain "
                                 "at the smallest budget of the figure?", unit="points"),
)
