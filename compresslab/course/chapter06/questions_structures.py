"""Questions 6.q4 to 6.q7 and predictions 6.p3 to 6.p5."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="6.q4", prompt="The last layer of the network has 784 inputs and only 10 outputs. With 256 centroids in each of 196 sub-spaces, how many "
                               "multiplications does look-up need, compared with the decoded layer?", options=(
        Option("more", "26 times *more*: the table has 256 entries for each sub-space, and only 10 of them are looked up",
               "Yes. The table costs n k, whatever the number of outputs m; decoding costs n m. Look-up pays when many rows share few centroids, m much larger than k.",
               correct=True),
        Option("fewer", "Fewer, as always: looking up replaces multiplying",
               "It replaces m products of a part by k of them. Here m is 10 and k is 256."),
        Option("none", "None: only additions are left",
               "After the table is there. Somebody has to multiply each part of x with each centroid first, for every new x."),
        Option("same", "As many: each weight is still used once",
               "Not each weight: each *centroid*, used or not. There are 256 in each sub-space, where the decoded layer has 10 rows."))),
    Question(id="6.q5", prompt="Same layer, same number of stored numbers, and fixed random signs on the inputs bring the hidden units back to life. What happened "
                               "without them?", options=(
        Option("mean", "Averaging keeps what the weights have in common and loses the rest. They have a slightly negative mean in common, the inputs are never "
                       "negative, so every sum came out negative",
               "Yes. In one weight the mean is a tenth of a deviation, nothing; a mean of 100 weights has a tenth of their deviation, and there it is as large as the "
               "rest. With random signs, the common part is averaged away, too. A look at the mean of what you project tells you beforehand.", correct=True),
        Option("capacity", "Without signs the layer has fewer free numbers, too few to keep a unit alive",
               "The signs are fixed and not trained: both layers have 4,000 numbers and one bias for each unit."),
        Option("energy", "With signs the projection keeps much more of the trained weight",
               "Printed above: about as little, or less. It is not how much is left but what."),
        Option("relu", "Signs make some inputs negative, and a ReLU lets only those units through",
               "The ReLU before them is long past. The signs act as if the columns of the weight had changed sign; the next ReLU sees sums, of either sign."))),
    Question(id="6.q6", prompt="At n = 256 the transform needs 14 times fewer multiplications, and for a single vector the dense layer is faster all the same. "
                               "Where do the missing factors go?", options=(
        Option("cost", "Into calls, complex numbers and memory traffic: a matrix product keeps the arithmetic units busy nearly all the time, a short transform "
                       "spends its time on everything else",
               "Yes. Three calls with their set-up, strided access, intermediate results, against one routine tuned for decades. A count of operations compares "
               "operations, not layers; so time it, at your n and your batch.", correct=True),
        Option("count", "Nowhere: the count is wrong, a transform needs n^2 multiplications as well",
               "The count is right, n log n. Operations are not time."),
        Option("python", "Into Python: in a compiled language the factor of 14 would be there",
               "Both layers are compiled code called from Python. A few microseconds for each call belong to it; but even without them a short transform does not reach "
               "the rate of a matrix product."),
        Option("gpu", "It would be there on a graphics card: processors are bad at transforms",
               "A graphics card favours matrix products even more, and starting a routine costs relatively more there: do not hope for the factor, measure."))),
    Question(id="6.q7", prompt="A network of 12 different layers becomes a network of one layer used 12 times. What shrinks to about a twelfth?", options=(
        Option("storage", "What is stored: the file, the weights in memory, and what an optimizer keeps for each",
               "Yes, and nothing else. (ALBERT was quicker to *train* on many machines: fewer gradients to send. And weights that stay in a cache can help. "
               "But every multiplication is still made.)", correct=True),
        Option("time", "The time for one input: there is only one layer to compute",
               "One layer to *store*. It runs 12 times: the MACs above are the same."),
        Option("activations", "The memory for activations during training",
               "Each of the 12 uses has inputs of its own, and the backward pass needs them all."),
        Option("all", "Everything: a network is its parameters",
               "Parameters are what is kept. What is computed depends on how often they are used."))),
)

PREDICTIONS = (
    Prediction(id="6.p3", prompt="The trained fc1 of LeNet-5 (500 x 800) is replaced by the nearest one of circulant blocks of 100. How much of its squared weights "
                                 "(sum of W^2) is left?", unit="%", log=True),
    Prediction(id="6.p4", prompt="With this projected fc1, how many of the 500 hidden units are above 0 for at least one of the images? (With the trained fc1 it is "
                                 "most of them.)", unit="units"),
    Prediction(id="6.p5", prompt="Counted in multiplications the transform wins from n = 16 or so. On the clock, single vectors (batch 1): from which n = 256, 512, ..., 8192 "
                                 "on is the circulant layer faster than the dense one?", unit="n", log=True),
)
