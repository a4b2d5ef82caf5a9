"""Exercises 11.10 to 11.12: the peak of an order, the best order, and a network for a microcontroller."""

from __future__ import annotations

from compresslab.course.chapter11 import alternatives_memory as right
from compresslab.course.chapter11 import budget_memory
from compresslab.course.chapter11 import checks_memory as checks
from compresslab.course.chapter11 import mistakes_memory as wrong
from compresslab.course.chapter11 import references_memory as references
from compresslab.course.exercise import Exercise, Mistake

EXERCISES = (
    Exercise(
        id="11.10", name="peak_of_order", title="What lives at once", dots=2, minutes=12, points=2, workshop=True,
        misconception="RAM needed = model size",
        reference=references.peak_of_order, verify=checks.verify_peak_of_order,
        alternatives=(right.by_counting_readers, right.by_looking_ahead),
        mistakes=(
            Mistake("all outputs", wrong.all_outputs, "you add up all outputs: one that was read for the last time makes room"),
            Mistake("largest output", wrong.largest_output, "you return the largest output; what it is made from is in memory as well"),
            Mistake("largest two", wrong.largest_two, "you add the two largest outputs, wherever they are; those two may never meet, or wait with others"),
            Mistake("those at work", wrong.only_those_at_work, "you count the operation's own inputs and output; others wait in memory for a later reader"),
            Mistake("inputs gone", wrong.inputs_gone, "you free the inputs before the operation has run: while it runs they and its output are there together"),
            Mistake("output not counted", wrong.output_not_counted, "you do not count the output of the operation that runs: it is being written"),
            Mistake("first reader", wrong.first_reader, "you free a tensor after its first reader; another one comes later"),
            Mistake("outputs dropped", wrong.outputs_dropped, "you drop what nobody reads: it is an output of the network, and stays"),
            Mistake("a step late", wrong.a_step_late, "you keep a tensor one operation too long: behind its last reader it is gone"),
            Mistake("as listed", wrong.as_listed, "you took the order of the dictionary; `order` is the one that runs"),
            Mistake("at the end", wrong.at_the_end, "you count what lives at the end; the peak is the largest number on the way"),
            Mistake("once per reader", wrong.once_per_reader, "you count a tensor once for each reader that is to come; it lies in memory once"),
            Mistake("image stays", wrong.image_stays, "you keep the input to the end; behind its last reader its place is free like any other"),
            Mistake("sum over steps", wrong.sum_over_steps, "you add up the steps; the same bytes serve one step after the other"),
            Mistake("which step", wrong.which_step, "you return the step of the peak; asked for are its bytes")),
        hints=("For every output: when is it made, and which step is the last that reads it? In between it is in memory, both steps included.",
               "live(t) = sum of the sizes of all outputs made at a step <= t whose last reader is at a step >= t, or that nobody reads; the peak is the largest live(t).",
               "last = dict.fromkeys(order, len(order) - 1)\nfor step, name in enumerate(order):\n    for source in operations[name][0]:\n        last[source] = ...\n"
               "for step in range(len(order)):\n    live = [name for name in order[: step + 1] if ...]\n    peak = max(peak, ...)\nreturn peak")),
    Exercise(
        id="11.11", name="best_order", title="An order that fits", dots=3, minutes=20, points=3,
        misconception="the order of the code is the order that must run",
        reference=references.best_order, verify=checks.verify_best_order,
        alternatives=(right.by_trying_all, right.by_levels),
        mistakes=(
            Mistake("given order", wrong.given_order, "you return the order in which they are listed: a possible one, and not the best"),
            Mistake("turned round", wrong.turned_round, "you run the list from its end: an operation must stand behind those that it reads"),
            Mistake("by size", wrong.by_size, "you sort by size, without looking at who reads whom"),
            Mistake("smallest output", wrong.smallest_output, "you always run what makes the smallest output: a small one now can mean that much waits later"),
            Mistake("largest output first", wrong.largest_output_first, "you always run what makes the largest output"),
            Mistake("least after", wrong.least_after, "you always go where least waits after the step: near-sighted, the peak lies behind the next step but one"),
            Mistake("depth first", wrong.depth_first, "you finish one branch after the other, better than all at once, but in which order? The one that leaves much behind should come late"),
            Mistake("breadth first", wrong.breadth_first, "you run all branches side by side: then the large outputs of all wait together"),
            Mistake("without inputs", wrong.without_inputs, "you count what waits after each step: while it runs its inputs are there, too"),
            Mistake("without output", wrong.without_output, "you count what waits before each step: the output that it writes needs room as well"),
            Mistake("those at work", wrong.at_work_only, "you add up inputs and outputs of the operations: that sum is the same in every order, what waits beside them is not"),
            Mistake("least sum", wrong.least_sum, "you make the sum over all steps small; a memory must hold the largest one"),
            Mistake("outputs forgotten", wrong.outputs_forgotten, "you forget outputs of the network that are done: nobody reads them, and they stay"),
            Mistake("largest peak", wrong.largest_peak, "you found the order with the largest peak"),
            Mistake("the peak", wrong.the_peak, "you return the peak; asked for is the order"),
            Mistake("outputs left out", wrong.outputs_left_out, "you leave out what nobody reads: an output has to be computed, too"),
            Mistake("without the image", wrong.without_the_image, "your order lacks the operations that read nothing: the input must be in memory, too")),
        hints=("What waits in memory depends on the set of operations that are done, not on how you got there. So ask of each set: how well can the rest be finished?",
               "finish(done) = min over the ready operations o of max(waiting(done) + size(o), finish(done + o)); waiting(done): outputs in `done` that somebody outside reads, or nobody at all.",
               "@cache\ndef finish(done):                    # a frozenset; returns (peak, order)\n    waiting = sum(...)\n    ways = []\n    for name in operations:\n"
               "        if name not in done and done.issuperset(operations[name][0]):\n            peak, rest = finish(done | {name})\n            ways.append((max(...), [name, *rest]))\n"
               "    return min(ways, default=(0, []))\nreturn finish(frozenset())[1]")),
    budget_memory.EXERCISE,
)
