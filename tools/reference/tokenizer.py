"""A small CLIP tokenizer: byte-level BPE with `</w>`, trained here on a few sentences."""

import json
from collections import Counter

import regex
from transformers import CLIPTokenizer

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
MERGES = 256
WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")

SENTENCES = """
a photo of a red circle on green grass
a photograph of an astronaut riding a horse on mars, highly detailed, sharp focus
a painting of a castle beside a lake at sunset, oil on canvas
an isometric map of a small village with stone houses and a river
a blue square above a yellow triangle on white sand
portrait of an old sailor with a grey beard, studio lighting, 85mm
the quick brown fox jumps over the lazy dog
a cat's eye in the dark, macro, high contrast
low quality, blurry, watermark, text, deformed, extra fingers
a wooden table with a bowl of green apples and a glass of water
snow on the mountains under a clear blue sky, wide angle
a tiny robot reading a book in the library, digital art, trending
lava flowing into the sea at night, long exposure
a brick wall covered in ivy, soft light, 4k, 8k
they're walking in the rain; we've seen it before, don't they'll say
an orange circle and a purple square on water
cyberpunk city street, neon lights, reflections, rain, night
watercolor of a bird on a branch, minimal, white background
a dragon made of clouds above the ocean, epic, dramatic lighting
the horse and the dog run through the green field
""".strip().splitlines()


def byte_letters():
    """The printable stand-in of each byte, in the order of CLIP's vocabulary (so that "!" is token 0)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    letters = {byte: chr(byte) for byte in plain}
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(256 + len(letters) - len(plain))
    return letters


def train():
    """(vocabulary, merges). Ties between pairs are broken by the pair itself, so the result is fixed."""
    letters = byte_letters()
    counts = Counter(word for line in SENTENCES for word in WORDS.findall(line.lower()))
    words = {word: [letters[b] for b in word.encode("utf-8")] for word in counts}
    for parts in words.values():
        parts[-1] += "</w>"
    merges = []
    while len(merges) < MERGES:
        pairs = Counter()
        for word, parts in words.items():
            for pair in zip(parts, parts[1:]):
                pairs[pair] += counts[word]
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {word: merge(parts, best) for word, parts in words.items()}
    singles = list(letters.values())
    tokens = [*singles, *(s + "</w>" for s in singles), *("".join(m) for m in merges), BOS, EOS]
    assert len(set(tokens)) == len(tokens)
    return {token: i for i, token in enumerate(tokens)}, merges


def merge(parts, pair):
    out = []
    for part in parts:
        # only a pair that still stands apart may join: "aaa" gives "aa a"
        if out and out[-1] == pair[0] and part == pair[1] and not joined(out):
            out[-1] = Joined(pair[0] + pair[1])
        else:
            out.append(part)
    return [str(part) for part in out]


class Joined(str):
    """A symbol made in this very pass, which may not join again before the next one."""


def joined(out):
    return isinstance(out[-1], Joined)


def added(content, normalized=True):
    return {"content": content, "lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False}


def config(pad):
    """tokenizer_config.json as the hub's SD repositories have it. The pad token stands in special_tokens_map.json."""
    return {
        "add_prefix_space": False, "bos_token": {"__type": "AddedToken", **added(BOS)}, "do_lower_case": True,
        "eos_token": {"__type": "AddedToken", **added(EOS)}, "errors": "replace", "model_max_length": 77,
        "pad_token": EOS, "tokenizer_class": "CLIPTokenizer", "unk_token": {"__type": "AddedToken", **added(EOS)},
    }, {"bos_token": added(BOS), "eos_token": added(EOS), "pad_token": pad, "unk_token": added(EOS)}


def save_plain(folder, pad):
    """vocab.json + merges.txt and the two small files: how the hub's repositories come."""
    vocabulary, merges = train()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer_config, special = config(pad)
    write(folder / "vocab.json", json.dumps(vocabulary, ensure_ascii=False))
    write(folder / "merges.txt", "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    write(folder / "tokenizer_config.json", json.dumps(tokenizer_config, indent=2))
    write(folder / "special_tokens_map.json", json.dumps(special, indent=2))


def save_fast(folder, pad):
    """tokenizer.json (+ tokenizer_config.json): what current transformers writes."""
    save_plain(folder, pad)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    for path in folder.iterdir():
        path.unlink()
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    saved = json.loads(path.read_text(encoding="utf-8"))
    for key in ("name_or_path", "is_local", "local_files_only"):
        saved.pop(key, None)
    write(path, json.dumps(saved, indent=2, ensure_ascii=False) + "\n")


def write(path, text):
    path.write_text(text, encoding="utf-8")
