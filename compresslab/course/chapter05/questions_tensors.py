"""Questions 5.q4 to 5.q7 and predictions 5.p3 to 5.p5."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="5.q4", prompt="Two components of a CP fit have grown to a thousand times the tensor that they add up to. The error is tiny. What will go wrong?", options=(
        Option("cancel", "Anything that changes a factor by a thousandth: the components no longer cancel, and the sum is off by the tensor's own size",
               "Yes. Eight bits move a number by up to 1/256 of the largest, and fine-tuning moves all of them. The fit is right, and it cannot be used.", correct=True),
        Option("nothing", "Nothing: the error is tiny, and that is what counts",
               "It is tiny in float64, for factors that nobody touches. A layer's weights are trained, rounded and multiplied in 32 bits or fewer."),
        Option("slow", "The layer becomes slower: large numbers take longer to multiply",
               "A multiplication takes the same time for all sizes of numbers."),
        Option("rank", "The rank was too high: with one component less nothing cancels",
               "With a lower rank the error is larger, and those that are left may cancel as well: it is at a low rank that no best fit need exist."))),
    Question(id="5.q5", prompt="The abstract of Novikov et al. reports up to 200,000 times fewer numbers for one layer of VGG, and a network that is 7 times smaller. "
             "How do the two fit together?", options=(
        Option("rest", "What was left alone now is the network: no factor on one layer makes the others smaller",
               "Yes. What stays beside it sets the limit, whether you make the layer 100 or 200,000 times smaller. Chapter 00's law, for bytes.", correct=True),
        Option("ranks", "The ranks had to be raised until 7 was left, or the accuracy would be gone",
               "Larger ranks would cost something, but far less: at ten times the numbers the layer would still be 20,000 times smaller."),
        Option("overhead", "The cores need indices and headers, which take the rest",
               "Cores are dense arrays: no indices, and a header of some hundred bytes."),
        Option("training", "200,000 is for the layer as trained, 7 for the layer after fine-tuning",
               "Fine-tuning changes values. The shapes of the cores, and so their number, stay."))),
    Question(id="5.q6", prompt="Same budget, three choices of ranks. The exact optimum loses the least total energy, and is not the network with the best accuracy. What is wrong with it?",
             options=(
        Option("proxy", "Nothing: it is the best answer to another question. The energy of weights says neither what inputs a layer sees nor what the layers behind it make of the error",
               "Yes. It could save much at one layer by giving up much of it: for a sum of shares that is a good bargain, for a chain of layers it need not be. "
               "A proxy gets worse the harder it is optimised; measure the thing itself.", correct=True),
        Option("bug", "It must be a bug: an optimum cannot be worse than a greedy choice",
               "It is not, in what it minimises: the sums printed beside say so. Accuracy is another quantity."),
        Option("noise", "Chance: another thousand images would turn the order round",
               "Look at the paired interval: a difference of several points on the same thousand images is far outside of it."),
        Option("macs", "It needs more MACs: energy and operations cannot both be optimised",
               "All three keep the same budget, as printed."))),
    Question(id="5.q7", prompt="A chain with a quarter of the multiplications of one 3x3 layer takes more than a quarter of its time. Where does the rest go?", options=(
        Option("memory", "To memory: every layer of the chain reads and writes whole feature maps, and does little with each number that it fetched",
               "Yes. The dense layer uses a fetched number hundreds of times, a depthwise 3x1 three times. Below the ridge of the roofline (chapter 00) the clock counts bytes, not MACs.",
               correct=True),
        Option("python", "To Python: four calls instead of one",
               "A call costs some microseconds, here a small part of a layer's time; it would count for one image of a few pixels."),
        Option("miscount", "To MACs that were not counted: the layers in between",
               "All of them are counted, layer by layer."),
        Option("weights", "To the weights: four kernels have to be loaded instead of one",
               "They are fewer numbers together than the one kernel was. The feature maps between the layers are new."))),
)

PREDICTIONS = (
    Prediction(id="5.p3", prompt="VGG's layer fc6 has 4,096 x 25,088 = 102,760,448 weights. As a tensor train with six cores, modes 4x4x4x4x4x4 and 2x7x8x8x7x4 and all ranks 2: "
               "how many numbers does it have?", unit="numbers", log=True),
    Prediction(id="5.p4", prompt="ResNet-8 at 40 % of its MACs, your ranks. Of the points that this cost, how many percent does one pass over 3,000 training images bring back?", unit="%"),
    Prediction(id="5.p5", prompt="A 3x3 layer of 64 channels, and its CP chain of rank 64, with 23 % of the MACs. How many times the dense layer's time does the chain take "
               "(16 maps of 16x16, one thread)? 0.23 would be: as the MACs.", unit="x", log=True),
)
