#!/usr/bin/env bash
# BpeTrainer with `end_of_word_suffix` (as CLIP's tokenizer has it) learns other merges from the same
# words each time, in one process and from one to the next: pairs that are as frequent are ordered by
# their letters' numbers, and letters with the suffix are numbered in an order that is drawn anew.
# Without the suffix the merges are always the same. Workers that each train the tokenizer of one
# model number its tokens differently, and their gradients are those of different texts.
#
# Version: tokenizers 0.23.3. Seen: 4 different lists of merges in 40 trainings with the suffix, 1
# without.
# Exits non-zero when that changes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check 'tokenizers==0.23.3'
cat > "$work/try.py" <<'PY'
import json
import sys

from tokenizers import Tokenizer, __version__, models, pre_tokenizers, trainers

WORDS = "a photo of red blue day night square round at in on painting bright dark picture".split()


def merges(suffix):
    given = {"end_of_word_suffix": suffix} if suffix else {}
    model = Tokenizer(models.BPE(**given))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=1000, min_frequency=1, show_progress=False, **given)
    model.train_from_iterator(WORDS, trainer)
    return json.dumps(json.loads(model.to_str())["model"]["merges"])


counts = {suffix: len({merges(suffix) for _ in range(40)}) for suffix in ("", "</w>")}
print(f"tokenizers {__version__}: different merges in 40 trainings, by suffix: {counts}")
sys.exit(0 if counts[""] == 1 and counts["</w>"] > 1 else 1)
PY
"$work/venv/bin/python" "$work/try.py"
