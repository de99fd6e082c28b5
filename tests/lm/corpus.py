"""A small corpus and its tokenizer, which the tests of the tokenizer share."""

from tinygpt.config import TokenizerConfig
from tinygpt.lm.tokenizer import Tokenizer

CORPUS = [
    "Once upon a time there was a little dog. The dog's ball was red, and the dog didn't share it."
    "\n\nThe end.",
    'One day, Lily said, "I can\'t find my ball!" So Lily and the dog looked for the ball '
    "together. It's 3 o'clock.",
    "Žluťoučký kůň — 小さな犬 🐶🐶  two  spaces\tand a tab\r\n",
] * 3
TOKENIZER = Tokenizer.train(CORPUS, TokenizerConfig(vocab_size=400))
