"""Tasks to learn: data that comes with the package, and what deals it out."""

from ._generated import Trials as Trials
from ._generated import copy_memory as copy_memory
from ._generated import delayed_match_to_sample as delayed_match_to_sample
from ._generated import delayed_xor as delayed_xor
from ._generated import evidence_accumulation as evidence_accumulation
from ._generated import pattern_generation as pattern_generation
from ._japanese_vowels import JapaneseVowels as JapaneseVowels
from ._japanese_vowels import japanese_vowels as japanese_vowels
from ._sequences import Sequences as Sequences
from ._sequences import minibatches as minibatches
from ._sequences import pad_sequences as pad_sequences
