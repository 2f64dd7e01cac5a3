"""Tasks to learn: data that comes with the package, and what deals it out."""

from ._japanese_vowels import JapaneseVowels as JapaneseVowels
from ._japanese_vowels import japanese_vowels as japanese_vowels
from ._sequences import Sequences as Sequences
from ._sequences import minibatches as minibatches
from ._sequences import pad_sequences as pad_sequences
