"""Questions 8.q4 to 8.q7 and predictions 8.p3 to 8.p5."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="8.q4", prompt="The two accuracies cannot be told apart, and ten times as many answers changed as the difference shows. What does that mean for whoever "
                               "replaces the dense network by the pruned one?", options=(
        Option("moved", "It is another network that makes about as many mistakes, on other images: whoever relied on a particular answer must look again",
               "Yes. Accuracy is the difference of two counts, mended minus broken; each of them can be large. A user who had a right answer yesterday and a wrong one "
               "today is not consoled by another user's luck.", correct=True),
        Option("noise", "Nothing: changes of this size are noise, another training of the same network would show them, too",
               "Another training does show them, and more of them. That makes it a matter of degree, not of nothing: retraining a network is a change for its users as well."),
        Option("worse", "The pruned network is worse after all: only the accuracy hides it",
               "Broken and mended nearly cancel: by right answers it is not distinguishable. It is *different*, which is another axis, not a hidden part of the first."),
        Option("wrong", "The test was too small: with more images the changes would go away",
               "With more images the *fraction* of changed answers is only known better. It does not shrink."))),
    Question(id="8.q5", prompt="LeNet-300-100 at 4 bits a weight, 32-bit activations, 32-bit arithmetic. The weights come from DRAM. What brings its energy for one image down most?",
             options=(
        Option("bytes", "Fewer bytes of weights: pruning, or still shorter codes",
               "Yes. Each weight is used once for each image, so its bits are paid in full, and a single bit from DRAM costs as much as four float MACs. "
               "Even at 4 bits the fetching is most of the bill.", correct=True),
        Option("int8", "8-bit arithmetic: a MAC then costs a fifteenth",
               "It does, and computing is the smaller part of the bill here. Do it too, but first look at what is large."),
        Option("activations", "8-bit activations: they move twice, once written and once read",
               "A few hundred numbers from SRAM, against 266,610 weights from DRAM: they hardly show."),
        Option("macs", "Fewer MACs by structured pruning, because operations are energy",
               "It would help, but for the other reason: weights that are gone need not be fetched. The MACs themselves are the small part."))),
    Question(id="8.q6", prompt="Stored at 4 bits, SqueezeNet's file is several times smaller. Which of the other columns fall with it?", options=(
        Option("none", "None: the weights are decoded, and then it is the same network",
               "Yes. Bytes of a file are one axis; MACs, milliseconds and activations are others. A code for storage moves one of them. (A processor with 4-bit "
               "arithmetic could turn it into time: chapter 11.)", correct=True),
        Option("latency", "Latency: fewer bytes to load, so it runs faster",
               "They are loaded once, decoded, and then stand in memory as floats. The measured ratio says: not distinguishable from 1, or nearly."),
        Option("memory", "The peak memory of activations, because all numbers get shorter",
               "The code is that of the weights. Activations are floats as before, and in this network they need more memory than the weights."),
        Option("macs", "MACs: short numbers need fewer operations",
               "Each weight is multiplied as often as before, whatever it was stored in."))),
    Question(id="8.q7", prompt="The colleague's methods did nothing at all, and every one of them gained accuracy in the buggy table. Which bug alone would be enough for that?", options=(
        Option("selection", "Choosing settings and epochs by test accuracy: the best of many equal tries is above their mean",
               "Yes. With enough tries the luckiest is well above the truth, and it looks like progress. The others make their own errors; this one makes a gain out of nothing.", correct=True),
        Option("nonzeros", "Counting nonzero weights in the place of bytes",
               "That makes files look smaller. It does not touch accuracy."),
        Option("failures", "Dropping failed runs",
               "It flatters methods that fail *often and for the hard seeds*. Where runs fail by pure chance, the mean of the others stays the same."),
        Option("seed", "Taking one dense network for all comparisons",
               "It shifts all rows by that network's luck, up or down, the same for all. A gain for every method, every time, needs another reason."))),
)

PREDICTIONS = (
    Prediction(id="8.p3", prompt="LeNet-300-100, 80 % of its weights pruned, tuned for one pass: about 0.1 points of 10,000 images, ten answers, lie between the two accuracies, not "
                                 "distinguishable. On how many of the 10,000 images did the answer change?", unit="images", log=True),
    Prediction(id="8.p4", prompt="One image through LeNet-300-100, every number a 32-bit float, weights from DRAM, activations in SRAM. Which share of the energy is for computing?",
               unit="%", log=True),
    Prediction(id="8.p5", prompt="SqueezeNet's weights take 5.0 MB. How much memory do its activations take for one image at the moment when they take most? (224 x 224, float32; "
                                 "each is kept until nobody needs it any more)", unit="MB", log=True),
)
