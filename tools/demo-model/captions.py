"""Captions for scenes, and the tokenizer that reads them.

A caption is put together afresh each time a picture is shown, so the model
meets many wordings of one scene.  Position and size are often left out, the
colour and the ground never, and one caption in ten is empty: that teaches the
unconditional prediction that classifier-free guidance needs.
"""

import json

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

EMPTY_SHARE = 0.1
TOKENS = 32

GROUND_WORDS = {
    "grass": ["grass", "green grass", "a lawn", "a green meadow"],
    "water": ["water", "blue water", "the sea", "waves"],
    "sand": ["sand", "yellow sand", "a sandy beach", "a desert"],
    "stone": ["stone", "grey stone", "gray stones", "cobblestones"],
    "brick": ["brick", "bricks", "a brick wall", "red bricks"],
    "wood": ["wood", "wooden planks", "a wooden floor", "a wooden table"],
    "lava": ["lava", "hot lava", "glowing lava", "molten lava"],
    "snow": ["snow", "white snow", "fresh snow", "ice and snow"],
    "sky": ["the sky", "a blue sky", "a cloudy sky", "clouds"],
    "night": ["the night sky", "a starry night", "a night sky with stars", "stars at night"],
}
SHAPE_WORDS = {
    "circle": ["circle", "circle", "disc", "ball"], "square": ["square", "square", "box"],
    "triangle": ["triangle"], "star": ["star"], "heart": ["heart"],
    "diamond": ["diamond", "diamond", "rhombus"],
}
SIZE_WORDS = {"small": ["small", "little", "tiny"], "medium": ["medium", "medium-sized"],
              "large": ["large", "big", "huge"]}
POSITION_WORDS = {
    "top left": ["in the top left corner", "at the top left", "in the upper left"],
    "top": ["at the top", "near the top"],
    "top right": ["in the top right corner", "at the top right", "in the upper right"],
    "left": ["on the left", "on the left side", "at the left"],
    "center": ["in the center", "in the middle", "in the centre"],
    "right": ["on the right", "on the right side", "at the right"],
    "bottom left": ["in the bottom left corner", "at the bottom left", "in the lower left"],
    "bottom": ["at the bottom", "near the bottom"],
    "bottom right": ["in the bottom right corner", "at the bottom right", "in the lower right"],
}
OPENINGS = ["", "", "", "a picture of ", "a drawing of ", "an image of ", "a photo of "]


def article(words):
    return ("an " if words[0] in "aeiou" else "a ") + words


def ground_phrase(ground, rng):
    if ground.startswith("plain "):
        colour = ground[6:]
        return rng.choice([f"on {colour}", f"on {article(colour)} background",
                           f"on a plain {colour} background", f"with {article(colour)} background"])
    words = rng.choice(GROUND_WORDS[ground])
    near = "in" if ground in ("sky", "night", "water") and rng.random() < 0.3 else "on"
    if near == "on" and rng.random() < 0.15:
        return f"with {words} in the background"
    return f"{near} {words}"


def bare_ground(ground, rng):
    """Words for a ground without a shape."""
    if ground.startswith("plain "):
        colour = ground[6:]
        return rng.choice([f"{article(colour)} background", f"a plain {colour} background",
                           f"nothing but {colour}", f"a plain {colour} texture"])
    words = rng.choice(GROUND_WORDS[ground])
    return rng.choice([words, words, f"a texture of {words}", f"a seamless texture of {words}",
                       f"nothing but {words}", f"{ground} texture", f"a seamless {ground} texture",
                       f"{rng.choice(OPENINGS)}{words}"])


def caption(scene, rng):
    """A caption for the scene; rng is a random.Random."""
    if rng.random() < EMPTY_SHARE:
        return ""
    if scene.shape is None:
        return bare_ground(scene.ground, rng)
    thing = f"{scene.colour} {rng.choice(SHAPE_WORDS[scene.shape])}"
    if rng.random() < 0.5:
        thing = f"{rng.choice(SIZE_WORDS[scene.size])} {thing}"
    # People do leave the article out, and some put the ground first.
    thing = article(thing) if rng.random() < 0.9 else thing
    place = " " + rng.choice(POSITION_WORDS[scene.position]) if rng.random() < 0.55 else ""
    ground = ground_phrase(scene.ground, rng)
    style = rng.random()
    if style < 0.12:
        return f"{ground}, {thing}{place}"
    if style < 0.24 and place:
        return f"{rng.choice(OPENINGS)}{thing} {ground},{place}"
    return f"{rng.choice(OPENINGS)}{thing}{place} {ground}"


def plain_caption(shape, colour, ground, position=None, size=None):
    """The one fixed wording that the evaluation uses."""
    words = f"{size} {colour} {shape}" if size else f"{colour} {shape}"
    if ground.startswith("plain "):
        where = f"on {article(ground[6:])} background"
    else:
        where = "on " + {"sky": "a blue sky", "night": "a starry night", "grass": "green grass"}.get(ground, ground)
    place = f" {POSITION_WORDS[position][0]}" if position else ""
    return f"{article(words)}{place} {where}"


def train_tokenizer(folder, texts, vocabulary=700):
    """Learn byte-pair merges and write them as the two files CLIP uses."""
    bpe = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>",
                               continuing_subword_prefix=""))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(_clip_words(), "removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    bpe.decoder = decoders.ByteLevel()
    # Every byte, alone and at a word's end, so that no text is unreadable.
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=letters, end_of_word_suffix="</w>",
        show_progress=False)
    bpe.train_from_iterator(texts, trainer)
    learned = json.loads(bpe.to_str())["model"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in learned["merges"]]
    names = letters + [c + "</w>" for c in letters]
    names += [a + b for a, b in merges if a + b not in set(names)]
    names += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {name: i for i, name in enumerate(dict.fromkeys(names))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    lines = ["#version: 0.2"] + [" ".join(m) for m in merges]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    start, end = "<|startoftext|>", "<|endoftext|>"
    special = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": end}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS,
              "do_lower_case": True, "add_prefix_space": False, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _clip_words():
    from tokenizers import Regex
    return Regex(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")


def load_tokenizer(folder):
    from transformers import CLIPTokenizer
    return CLIPTokenizer.from_pretrained(folder)
