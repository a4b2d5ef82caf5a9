"""Exercises 3.7 to 3.13: blocks of mobile networks, depth, search, a stage to debug, a network to design."""

from __future__ import annotations

from itertools import combinations

from compresslab.course.chapter03 import alternatives_networks as right
from compresslab.course.chapter03 import budget_task, mistakes_depth as slips
from compresslab.course.chapter03 import checks_networks as checks
from compresslab.course.chapter03 import mistakes_networks as wrong
from compresslab.course.chapter03 import references_networks as references
from compresslab.course.exercise import Exercise, Mistake

BUGS = {
    "norm": "one batch norm stands in two places of a branch, and normalises both with the statistics of neither",
    "bent": "the branch ends in a ReLU6, so that it can only add, never take away",
    "crop": "where the size changes, a corner of the input is added to the whole output: there is no shortcut",
    "same": "[block] * n is n times one block, with one set of weights: build each one anew",
}

PLACES = {"norm": "the batch norms", "bent": "the end of a branch", "crop": "the shortcut", "same": "the row of blocks"}


def still(left: tuple[str, ...]) -> str:
    """What to say of a stage with these bugs left: how many, where, and what one of them is."""
    if len(left) == 1:
        return f"one bug is left: {BUGS[left[0]]}"
    places = " and ".join(PLACES[bug] for bug in left)
    return f"{('two', 'three')[len(left) - 2]} bugs are left, in {places}; the first: {BUGS[left[0]]}"


EXERCISES = (
    Exercise(
        id="3.7", name="InvertedResidual", title="Wide inside, thin outside", dots=3, minutes=15, track="core", points=3,
        misconception="a shortcut joins the wide ends, and every convolution wants an activation",
        reference=references.InvertedResidual, verify=checks.verify_inverted_residual,
        alternatives=(right.InvertedByHand, right.InvertedInParts),
        mistakes=(
            Mistake("bent bottleneck", wrong.BentBottleneck,
                    "there is a ReLU6 behind the last convolution: few channels, and it sets half of their numbers to zero; the bottleneck stays linear"),
            Mistake("bent by relu", wrong.BentByRelu, "there is a ReLU behind the last convolution: the bottleneck stays linear"),
            Mistake("bent sum", wrong.BentSum, "you bend the sum: ResNet does, this block does not; what leaves it may be negative"),
            Mistake("relu", wrong.PlainRelu, "that is ReLU; the paper takes ReLU6, which also cuts off above 6"),
            Mistake("not depthwise", wrong.NotDepthwise,
                    "the 3x3 convolution mixes all channels: with groups=hidden each channel has one filter of its own"),
            Mistake("not inverted", wrong.NotInverted, "you squeeze before the 3x3, as ResNet's bottleneck does; this block is inverted: expansion TIMES in_channels"),
            Mistake("expands the outputs", wrong.ExpandsOutputs, "the hidden width is expansion * in_channels, not out_channels"),
            Mistake("stride in the first", wrong.StrideFirst,
                    "the stride is on the 1x1 convolution: it never looks at three of four pixels; put it on the depthwise one"),
            Mistake("biases", wrong.Biased, "a batch norm behind a convolution subtracts its bias again: bias=False"),
            Mistake("no padding", wrong.NoPadding, "the 3x3 convolution shrinks the image: padding=1"),
            Mistake("no depthwise", wrong.NoDepthwise, "the 3x3 depthwise convolution is missing: no pixel meets its neighbours"),
            Mistake("no last pointwise", wrong.NoPointwise, "the last 1x1 convolution is missing: nothing mixes the channels again or makes them few"),
            Mistake("cropped shortcut", wrong.Cropped,
                    "with stride 2 you add the top left corner of the input to the whole output: where the size changes there is no shortcut"),
            Mistake("subsampled shortcut", wrong.Subsampled, "with stride 2 you add every second pixel of the input: where the size changes there is no shortcut"),
            Mistake("stride forgotten", wrong.StrideForgotten, "with equal channels and stride 2 the sizes do not agree: no shortcut there"),
            Mistake("channels forgotten", wrong.ChannelsForgotten, "with stride 1 the channels may still differ: a shortcut needs both to agree"),
            Mistake("no shortcut", wrong.NoShortcut, "the shortcut is missing: where stride is 1 and the channels agree, add x"),
            Mistake("one norm twice", wrong.SharedNorm, "one batch norm stands in two places: it cannot learn the statistics of both"),
            Mistake("norm after", wrong.NormAfter, "the batch norm stands behind the activation: it belongs between a convolution and its ReLU6"),
            Mistake("stride in the last", wrong.StrideLast,
                    "the stride is on the last 1x1 convolution: the output is right, but the depthwise one computes four pixels where one is used; give the stride to it"),
            Mistake("not widened", wrong.NotWidened, "with expansion 1 you leave the first convolution out, as MobileNetV2 does: here all three stay")),
        hints=("Three convolutions: 1x1 to expansion * in_channels, 3x3 depthwise (the stride is here), 1x1 to out_channels. Who gets a ReLU6?",
               "y = BN(project(ReLU6(BN(depthwise(ReLU6(BN(expand(x)))))))). Add x where stride == 1 and in_channels == out_channels.",
               "hidden = expansion * in_channels\nself.layers = nn.Sequential(\n    nn.Conv2d(in_channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),\n"
               "    nn.Conv2d(hidden, hidden, 3, ..., padding=1, groups=..., bias=False), ...,\n    nn.Conv2d(hidden, out_channels, 1, bias=False), ...)\n"
               "self.residual = ...")),
    Exercise(
        id="3.8", name="squeeze_excite", title="A gate for each channel", dots=2, minutes=8, track="core",
        misconception="a convolution weighs its channels the same for every image, and so must we",
        reference=references.squeeze_excite, verify=checks.verify_squeeze_excite,
        alternatives=(right.excite_with_modules, right.excite_as_convolutions),
        mistakes=(
            Mistake("sigmoid", wrong.soft_gate, "that is the smooth sigmoid; MobileNetV3 takes the hard one, relu6(z + 3) / 6"),
            Mistake("not divided", wrong.gate_not_divided, "relu6(z + 3) goes up to 6: divide by 6, a gate is between 0 and 1"),
            Mistake("not shifted", wrong.gate_not_shifted, "relu6(z) / 6 is 0 for every negative z: shift by 3 first, so that z = 0 gives a gate half open"),
            Mistake("no relu between", wrong.no_relu_between, "without the relu two linear layers are one: the bottleneck only loses rank"),
            Mistake("largest pixel", wrong.largest_pixel, "you squeeze with the largest pixel: take the mean over the pixels"),
            Mistake("summed pixels", wrong.summed_pixels, "you squeeze with the sum over the pixels: it grows with the image; take the mean"),
            Mistake("one gate for the batch", wrong.one_gate_for_the_batch,
                    "you average over the batch as well: an image's gates must not depend on its neighbours in the batch"),
            Mistake("a gate for each pixel", wrong.gate_for_each_pixel, "the squeeze is missing: you make a gate for every pixel; average over height and width first"),
            Mistake("gates only", wrong.gates_only, "these are the gates: multiply x by them"),
            Mistake("added", wrong.gate_added, "you add the gates to x: multiply"),
            Mistake("plus input", wrong.added_to_input, "you add x once more: the gate scales the channel, there is no shortcut inside"),
            Mistake("not broadcast", wrong.not_broadcast, "the gates have the shape (N, C), x has (N, C, H, W): add two axes, gate[:, :, None, None]")),
        hints=("Squeeze: one number for each channel of each image. Excite: two small linear layers turn these numbers into gates.",
               "z = up(relu(down(mean over H and W of x)));  gate = relu6(z + 3) / 6;  output = x times gate.",
               "squeezed = x.mean((...))\ngate = F.relu6(up(...) + 3) / 6\nreturn x * gate[:, :, None, None]")),
    Exercise(
        id="3.9", name="GhostModule", title="Cheap ghosts", dots=2, minutes=10, track="stretch",
        misconception="every feature map must be computed from all the others",
        reference=references.GhostModule, verify=checks.verify_ghost_module,
        alternatives=(right.GhostsSideBySide, right.GhostsWithParameters),
        mistakes=(
            Mistake("dense ghosts", wrong.DenseGhosts, "your ghosts mix all real maps: a cheap filter looks at one map only, groups=real"),
            Mistake("no real maps", wrong.NoRealMaps, "the real maps do not come out: the first out_channels / ratio channels are the real maps, unchanged"),
            Mistake("ghosts first", wrong.GhostsFirst, "the ghosts stand first: real maps first, then the ghosts"),
            Mistake("bent", wrong.BentMaps, "you bend the real maps with a relu: here both parts are linear (in GhostNet each has batch norm and relu behind it)"),
            Mistake("too many real maps", wrong.TooManyReal, "all out_channels are real already, and the ghosts come on top: only out_channels / ratio are real"),
            Mistake("pointwise ghosts", wrong.PointwiseGhosts, "with a 1x1 filter a ghost is its map times a number: take 3x3"),
            Mistake("biases", wrong.BiasedGhosts, "no biases here: bias=False in both convolutions"),
            Mistake("no padding", wrong.GhostsNotPadded, "a 3x3 kernel without padding shrinks the image: padding=kernel_size // 2"),
            Mistake("padded by one", wrong.PaddedByOne, "padding=1 is right for a 3x3 kernel only, a 5x5 one still shrinks the image: padding=kernel_size // 2"),
            Mistake("ratio truncated", wrong.RatioTruncated, "5 channels at ratio 2 come out as 4: refuse a ratio that does not divide with a ValueError")),
        hints=("Two convolutions. The first makes few maps from all inputs; the second makes each ghost from one of these maps.",
               "real = out_channels / ratio. primary: in_channels -> real, k x k. cheap: real -> (ratio - 1) real, 3x3, groups=real. "
               "Output: cat([primary(x), cheap(primary(x))]) along the channels.",
               "if out_channels % ratio:\n    raise ValueError(...)\nreal = out_channels // ratio\nself.primary = nn.Conv2d(in_channels, real, kernel_size, padding=..., bias=False)\n"
               "self.cheap = nn.Conv2d(real, ..., 3, padding=1, groups=..., bias=False)\n...\ny = self.primary(x)\nreturn torch.cat([y, ...], dim=1)")),
    Exercise(
        id="3.10", name="stochastic_depth", title="Blocks that come and go", dots=3, minutes=12, track="core",
        misconception="a network trained with dropped layers is a smaller network",
        reference=references.stochastic_depth, verify=checks.verify_stochastic_depth,
        alternatives=(right.depth_by_bernoulli, right.depth_by_random_module),
        mistakes=(
            Mistake("not scaled at test", slips.not_scaled_at_test,
                    "at test a branch was there in only p of the training steps: multiply it by p_l, or the next block meets larger numbers than ever"),
            Mistake("scaled in training", slips.scaled_in_training,
                    "you divide by p_l in training and leave the test alone, as torchvision does; the paper scales at test: here follow the paper"),
            Mistake("scaled twice", slips.scaled_twice, "you scale by p_l at test AND in training: a branch that survives is added as it is"),
            Mistake("same for all", slips.same_for_all, "every block has p_L: the survival falls along a line, from almost 1 to p_L"),
            Mistake("from zero", slips.counted_from_zero, "blocks are counted from l = 1: the last one, l = L, has exactly p_L"),
            Mistake("first drops most", slips.first_drops_most, "your line rises: the first blocks must survive most, the last one has p_L"),
            Mistake("from one", slips.all_but_one, "your line starts at exactly 1 and divides by L - 1: with l = 1 ... L it is 1 - l/L (1 - p_L), and the first block may be dropped, too"),
            Mistake("rises to one", slips.rises_to_one, "your line rises to 1: it must fall, and the last block has exactly p_L"),
            Mistake("drop probability", slips.drop_probability, "that is the probability to be dropped: p_l is the probability to survive, 1 minus it"),
            Mistake("last is dropped", slips.last_is_dropped, "`last` is the survival p_L of the last block, not its drop probability: 1 - l/L (1 - p_L)"),
            Mistake("drops at test", slips.drops_at_test, "at test you still toss coins: with training=False every branch is used, scaled"),
            Mistake("never drops", slips.never_drops, "in training you scale instead of dropping: a branch is either there or not"),
            Mistake("computed in vain", slips.computed_in_vain, "you compute a branch and multiply it by zero: skip it, that is where the time is saved"),
            Mistake("one coin", slips.one_coin, "one coin for all blocks: toss one for each"),
            Mistake("relu inside", slips.relu_inside, "the relu belongs behind the addition: relu(b f(x) + x)"),
            Mistake("shortcut dropped", slips.whole_block_dropped, "you drop (or scale) the shortcut with the branch: then nothing comes through; only b f(x) goes"),
            Mistake("Python's coins", slips.pythons_coins, "you toss with Python's random: torch.manual_seed does not reach it, and no run can be repeated; take torch.rand")),
        hints=("A loop over the branches with l = 1 ... L. In training: a coin for each. At test: no coin, but a factor.",
               "p_l = 1 - l/L (1 - p_L). Training: x <- relu(f_l(x) + x) with probability p_l, else x stays. Test: x <- relu(p_l f_l(x) + x).",
               "for number, branch in enumerate(branches, 1):\n    p = ...\n    if not training:\n        x = F.relu(... + x)\n    elif torch.rand(()) < p:\n"
               "        x = ...\nreturn x")),
    Exercise(
        id="3.11", name="evolve", title="Search under a budget", dots=4, minutes=20, track="stretch", points=3,
        misconception="to find the best network one must try them all",
        reference=references.evolve, verify=checks.verify_evolve, alternatives=(right.evolve_with_memory, right.evolve_one_by_one),
        mistakes=(
            Mistake("budget ignored", slips.budget_ignored, "the candidate that you return costs more than the budget: drop children that do not fit"),
            Mistake("strictly below", slips.strictly_below, "a child that costs exactly the budget fits: <=, not <"),
            Mistake("parent changed", slips.parent_changed, "you change the parent itself: copy it first, list(parent)"),
            Mistake("scored before costed", slips.scored_first,
                    "you score children that do not fit: a score is a training, a cost is a count; look at the cost first"),
            Mistake("worst kept", slips.keeps_the_worst, "you keep the candidates with the lowest scores: sort downwards"),
            Mistake("tries everything", slips.tries_everything, "you go through the whole space: with 30 places of 6 choices it has more candidates than the universe has seconds"),
            Mistake("drawn afresh", slips.drawn_afresh, "your children have no parents: each is drawn afresh, and nothing is learnt from the good ones; copy a parent and change one place"),
            Mistake("one place", slips.one_place_only, "you always change the first place: choose the place at random"),
            Mistake("first parent only", slips.children_of_the_first, "every child comes from the first candidate: take a random one of the current parents"),
            Mistake("parents die", slips.parents_die, "a better candidate was seen and then lost: the parents must stay in the race with their children"),
            Mistake("last of the kept", slips.last_one, "you return the worst of the parents kept: the best one stands first"),
            Mistake("cheapest", slips.cheapest, "you select by cost: the budget is a limit, the score decides"),
            Mistake("options of the first", slips.options_of_the_first, "you take the options of the first place for every place: draw from choices[place]"),
            Mistake("smallest first", slips.starts_with_the_smallest, "you start with the smallest number at each place: start with the first choice, options[0]"),
            Mistake("Python's dice", slips.pythons_dice, "you draw with Python's random: torch.manual_seed does not reach it, and no run can be repeated; take torch.randint")),
        hints=("Keep a small list of parents. In each round make children by copying a parent and changing one place; keep the best of all, old and new.",
               "Start with the first choices. A child that costs too much is thrown away before anybody scores it. Survivors: the `keep` best scores of parents and children.",
               "parents = [tuple(options[0] for options in choices)]\nfor _ in range(rounds):\n    family = list(parents)\n    for _ in range(children):\n"
               "        child = list(...)                      # a random parent\n        child[...] = ...                       # a random place, a random choice\n"
               "        if cost(tuple(child)) <= budget ...:\n            family.append(tuple(child))\n    parents = sorted(family, key=score, reverse=True)[:keep]\nreturn parents[0]")),
    Exercise(
        id="3.12", name="Stage", title="Debug: a stage that trains anyway", dots=3, minutes=15, track="core", points=3,
        misconception="if the shapes agree and the loss falls, the network is what it claims to be",
        reference=references.Stage, verify=checks.verify_stage, alternatives=(right.StageOfBlocks, right.StageWithFlags),
        mistakes=(
            Mistake("as it was", slips.with_bugs(*BUGS),
                    "nothing is repaired yet: count the parameters; set all of them to zero; look for outputs below zero where the channels change"),
            *(Mistake(", ".join(left) + " left", slips.with_bugs(*left), still(left)) for number in (3, 2, 1) for left in combinations(BUGS, number)),
            Mistake("stride everywhere", slips.StrideEverywhere, "every block has the stride: only the first one halves the image"),
            Mistake("shortcuts lost", slips.ShortcutsLost, "you took out all shortcuts: where channels and size stay the same x is added"),
            Mistake("subsampled", slips.Subsampled, "every second pixel instead of the corner: where the size changes there is no shortcut at all"),
            Mistake("plain list", slips.PlainList, "a Python list hides its modules: no parameter is registered, nothing would train; use nn.ModuleList"),
            Mistake("norm after", slips.NormAfter, "the batch norm stands behind the activation: it belongs between a convolution and its ReLU6"),
            Mistake("stride in the last", slips.StrideLast,
                    "the stride is on the last 1x1 convolution: the output is right, but the depthwise one computes four pixels where one is used; give the stride to it")),
        hints=("Four bugs. Print sum(p.numel() for p in stage.parameters()) and compute by hand what it should be. Set all parameters to zero: what must come out? Look at the smallest output of a stage that changes its channels.",
               "Each convolution has a batch norm of its own; the last has no activation; x is added only where y has the SHAPE of x; each block is built anew, [block] * n repeats one object.",
               "first = ...\nothers = [self.branch(out_channels, out_channels, 1, expansion) for _ in range(blocks - 1)]\n...\n"
               "nn.Conv2d(...), nn.BatchNorm2d(hidden), nn.ReLU6(), nn.Conv2d(...), nn.BatchNorm2d(hidden), nn.ReLU6(), nn.Conv2d(...), nn.BatchNorm2d(out_channels)\n...\n"
               "if y.shape == x.shape:\n    y = y + x")),
    budget_task.EXERCISE,
)
