"""Questions 3.q1 to 3.q3 and predictions 3.p1 and 3.p2."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="3.q1", prompt="You halve the width of a deep network: every layer inside it has half the channels. What happens to its parameters, "
             "its MACs and the activations that it moves?", options=(
        Option("quadratic", "About a quarter of the parameters, a quarter of the MACs, half of the activations",
               "Yes. A weight belongs to a pair of channels, one in, one out: both halve. An activation belongs to one channel. So "
               "the thinner a network, the more it is memory traffic that it pays for.", correct=True),
        Option("half", "Half of everything: there are half as many channels",
               "A convolution has a kernel for each pair of an input and an output channel, and both numbers halve: try conv_cost twice."),
        Option("all quadratic", "A quarter of everything: parameters, MACs and activations",
               "An activation belongs to one channel at one position, not to a pair of channels: their number only halves."),
        Option("macs half", "A quarter of the parameters, but half of the MACs: the images are as large as before",
               "The images are as large as before, and therefore MACs shrink exactly as the weights do: each weight is used at as many "
               "positions as it was."))),
    Question(id="3.q2", prompt="With every 3x3 layer projected to its nearest separable one, ResNet-8 guesses. The MobileNet-like network, built of "
             "depthwise and 1x1 layers before its first training step, answers better than ResNet-8 ever did. Why?", options=(
        Option("together", "Training looks for the best separable network; the projection takes, layer by layer, the separable weights nearest to a dense one",
               "Yes. Nearest in the weights is not best in the answers, the errors of all layers add up, and training can use other "
               "features, more channels and more layers, which the separable network can afford.", correct=True),
        Option("species", "Separable layers compute something that no dense layer can",
               "The other way round: every separable convolution is a dense one, whose kernels for one input channel are multiples of each other."),
        Option("svd", "The SVD does not find the nearest separable kernel",
               "It does, the check held it against the discarded singular values. No separable kernel is nearer."),
        Option("relu", "Because of batch norm and relu between the two halves, without them separable layers cannot work",
               "They help a little. But the projection fails for another reason: it asks what is near in the weights, and nobody trained for it."))),
    Question(id="3.q3", prompt="With 6 groups of 2 and one shuffle between two grouped layers, an output still sees only 4 of 12 inputs. Why not all?",
             options=(
        Option("company", "Its group holds 2 channels, they come from 2 different groups, and each of them has seen 2 inputs",
               "Yes: after one shuffle an output sees at most n times n inputs with n channels in a group. It sees all g n of them when "
               "n is at least g; otherwise the next shuffle must finish the work.", correct=True),
        Option("fixed", "The shuffle is the same for every image; a random one would connect all",
               "A random order can put two channels of one group together, and then an output sees less. It never sees more: a group of 2 "
               "holds two channels, whatever the order."),
        Option("training", "The weights are random; training would open the missing connections",
               "A missing connection is not a small weight: there is no weight. Its gradient is exactly zero, for ever."),
        Option("transposed", "The groups were transposed: with (n, groups) instead of (groups, n) all inputs would be reached",
               "The inverse shuffle puts channels i and i + 6 side by side: other companions, but again two, and 4 inputs."))),
)

PREDICTIONS = (
    Prediction(id="3.p1", prompt="The first two of the eight convolutions of our VGG-like network hold less than 1 % of the weights of all eight. What share of "
               "the multiply-accumulates do they do?", unit="%"),
    Prediction(id="3.p2", prompt="Each input channel m of a trained layer, 64 to 64 channels, has 64 kernels of 3x3. The nearest separable layer allows "
               "only multiples of one kernel there. A layer of random numbers keeps 19 % of its squared size (the sum of w^2) that way. How much "
               "does the trained layer keep?", unit="%"),
)
