"""Everything that chapter 09 shows without computing it again: `python -m compresslab evidence 09`.

Its parts stand beside their sections; an entry is one network, one seed or one kind of training.
"""

from compresslab.course.chapter09 import evidence_decoding, evidence_recurrent, evidence_rounding, evidence_structure

ENTRIES = evidence_recurrent.ENTRIES | evidence_rounding.ENTRIES | evidence_decoding.ENTRIES | evidence_structure.ENTRIES
TRAINED = ("goal",)  # it judges the networks that entries before it trained; alone it takes a quarter of an hour
