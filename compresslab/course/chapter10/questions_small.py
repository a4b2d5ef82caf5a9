"""Questions 10.q4 to 10.q6 and predictions 10.p3 to 10.p4."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="10.q4", prompt="Hart's store has every training point right, and still more test points wrong than the full training set. How can that be?", options=(
        Option("margin", "It was only asked about training points. A test point between two of them may be nearer to the wrong one, now that others are gone",
               "Yes. Consistency says what happens *at* the training points. Between them the borders have moved, and nothing held them.", correct=True),
        Option("bug", "It cannot: a consistent store decides like the full set everywhere",
               "It decides alike at the training points. There are a few more places."),
        Option("bits", "The points were rounded, and rounding moves the borders",
               "Rounding to 8 bits moves a pixel by less than one part in 250; float32 points show the same loss."),
        Option("order", "The order of the visits was unlucky; with the best order the loss is gone",
               "Other orders give other stores of about the same size and the same loss. None of them is told about the space between the points."))),
    Question(id="10.q5", prompt="The query could be encoded as well, and all distances read from a table of code words against code words, made once for ever. What is lost?", options=(
        Option("twice", "The query is rounded, too: two errors in every distance in place of one, and no bytes are saved, because a query is never stored",
               "Yes. That is the symmetric distance. It saves M k small distances for each query, and pays with accuracy.", correct=True),
        Option("bytes", "Bytes: the table of code words against code words is larger than the index",
               "M tables of k x k numbers; for k = 16 that is less than the code books."),
        Option("nothing", "Nothing: a stored point is a code anyway, so both sides might as well be",
               "Then try it: the distance between two rounded points has the errors of both. The known mistake of exercise 10.8 does it."),
        Option("exact", "Exactness: the asymmetric distance is the true one between query and training point",
               "Neither is: the stored point *is* rounded. The asymmetric distance is exact to the decoded point, not to the one that was there."))),
    Question(id="10.q6", prompt="The pickle of the ProtoNN above is several times larger than its constants in flash. What is in it?", options=(
        Option("training", "Everything that the Python object carries along: every number as a float, its settings, and the names of the classes and modules that it needs to come to life",
               "Yes. It is the state of a Python object, made to go on working in Python, not what a prediction needs.", correct=True),
        Option("data", "The training data",
               "These models keep none. (A nearest-neighbour model does, and there the pickle is large for a good reason.)"),
        Option("compressed", "The same numbers, only not compressed: a zip would make them equal",
               "Float copies of 8-bit numbers do zip well. But that shows how little is in them; a device has to hold what it computes with."),
        Option("python", "The Python interpreter",
               "A pickle names modules and classes. The interpreter that can run them comes on top, and does not fit into 32 kB."))),
)

PREDICTIONS = (
    Prediction(id="10.p3", prompt="Hart's rule on the digits' training set: what fraction of the training points is left in the store?", unit="fraction"),
    Prediction(id="10.p4", prompt="The smallest ProtoNN of the table whose 95 % interval stays below one point lost: how many times smaller than the file of all neighbours is its file?", unit="x", log=True),
)
