"""`text.stats`: what a text is made of."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from jobs import task

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)")
PARAGRAPH = re.compile(r"\n\s*\n")
WORDS_A_MINUTE = 238  # silent reading of English prose


@dataclass
class WordCount:
    word: str
    count: int


@dataclass
class TextStats:
    characters: int
    words: int
    unique_words: int
    sentences: int
    paragraphs: int
    words_per_sentence: float
    longest_word: str
    reading_minutes: float
    most_common: list[WordCount]


@task(name="text.stats")
def stats(text: str, top: Annotated[int, Field(ge=0, le=1000)] = 10) -> TextStats:
    """Count the words, sentences and paragraphs of a text, and its `top` most frequent words."""
    words = [word.lower() for word in WORD.findall(text)]
    counts = Counter(words)
    sentences = len(SENTENCE_END.findall(text)) or int(bool(words))
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return TextStats(
        characters=len(text),
        words=len(words),
        unique_words=len(counts),
        sentences=sentences,
        paragraphs=sum(bool(part.strip()) for part in PARAGRAPH.split(text)),
        words_per_sentence=round(len(words) / sentences, 2) if sentences else 0.0,
        longest_word=max(counts, key=len, default=""),
        reading_minutes=round(len(words) / WORDS_A_MINUTE, 2),
        most_common=[WordCount(word, count) for word, count in ranked[:top]],
    )
