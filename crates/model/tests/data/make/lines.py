"""Writes lines.json: the texts that the tokenizers are compared on. Deterministic; Python 3 alone.

Real text comes from files of a Debian 12 system (licences, the library of Python 3.11); the rest is made here: digits, whitespace runs, scripts, emoji, control characters.
"""
import json, pathlib, random

r = random.Random(20240)
out = []

def add(*texts):
    out.extend(texts)

# Licences.
def sample(path, n, low=20, high=200):
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8", errors="ignore")
    except OSError:
        return
    lines = [l for l in text.split("\n") if low <= len(l) <= high]
    add(*r.sample(lines, min(n, len(lines))))

for p in ["Apache-2.0", "GPL-3", "Artistic", "MPL-2.0", "BSD"]:
    sample("/usr/share/common-licenses/" + p, 12)
# Code, with its indentation, one line and several.
import ast, argparse, html, textwrap, typing
for m in [ast, argparse, html, textwrap, typing, json]:
    lines = pathlib.Path(m.__file__).read_text().split("\n")
    add(*r.sample([l for l in lines if l.strip()], min(14, sum(1 for l in lines if l.strip()))))
    for _ in range(4):
        i = r.randrange(max(1, len(lines) - 12))
        add("\n".join(lines[i:i + 12]))
add("fn main() {\n    println!(\"{}\", 0x1F_u8 as f64 / 3.14e-10);\n}\n",
    "#include <stdio.h>\n\tint\tx = a->b ? c++ : --d;\r\n/* */ // ok\r\n",
    "SELECT * FROM t WHERE a<>'b' AND c>=10;--x", "<p class=\"a b\">x&nbsp;y</p><br/>\n<table>\n\t<tr><td>1</td></tr></table>",
    "```rust\nlet x = 1;\n```\n\n- a\n  - b\n    1. c\n", "$ cd ~/x && ls -la | grep '^d' > /dev/null 2>&1",
    "a\\nb \\u00e9 %20 &amp; {{x}} {% if y %} #{z} ${w} <%= v %>", "https://example.com/a_b-c?d=e&f=%20#g user@example.org")
# Contractions and punctuation.
add("I'm you're he's we've they'll I'd can't won't it's 'tis o'clock rock'n'roll", "I'M YOU'RE HE'S WE'VE DON'T",
    "\u201cIt\u2019s\u201d \u2018so\u2019 \u2014 he said\u2026 (maybe) [sic] {x}; a/b, c\\d: e|f!? *g* _h_ ~i~ `j` ^k^", "!!! ??? ... --- === +++ ''' \"\"\" ,,, ;;; :::",
    "'s 't 're 've 'm 'll 'd", " 's  's\n's", "a's'b't", "Mr. O'Neill-Smith's e-mail: 50% off!")
# Digits.
add("0 1 12 123 1234 12345 1234567890", "3.14159 -2,000.50 1e10 0xff 0b101 1_000", "2024-01-31T23:59:59Z +49 (0)30 123456",
    "\u0661\u0662\u0663 \u0967\u0968\u0969 \uff11\uff12\uff13 \u00bd \u00bc \u00b2 \u00b3 \u2167 \u2462 \u4e09 \u5341", "x1y2z3 a1 1a 1.1.1 1st 2nd v2.0.1-rc3", "9" * 40, "1 2  3   4    5")
# Whitespace runs, alone and around things.
for n in range(1, 36):
    add(" " * n + "x")
for n in [1, 2, 3, 5, 8, 16, 31, 32, 33, 64]:
    add("\n" * n, "\t" * n, " " * n, "a" + "\n" * n + "b", "a" + "\t" * n + "b", "a" + " " * n, "a" + " " * n + "\n" + " " * n + "b", "a" + " " * n + "7")
add(" \t \n \r\n \r x", "a \n b", "a\u00a0b \u2003c\u3000d\u200be\u2028f\u2029g\u0085h", "\u00a0\u00a0x", "x \u00a0 y", "trailing \n\n ", "\ufeffbom")
# Unicode.
add("na\u00efve caf\u00e9 \u00fcber \u00c5ngstr\u00f6m \u0141\u00f3d\u017a \u0130stanbul \u015f\u011f\u0131", "cafe\u0301 n\u0303 a\u030a\u0323 Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324\u031e\u0349\u035a\u032f\u031e\u0320\u034d",
    "\u0417\u0434\u0440\u0430\u0432\u0441\u0442\u0432\u0443\u0439, \u043c\u0438\u0440! \u042d\u0442\u043e \u0442\u0435\u0441\u0442 42.", "\u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5 \u03ba\u03cc\u03c3\u03bc\u03b5", "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 \u064a\u064e\u0648\u0652\u0645",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01", "\u4f60\u597d\uff0c\u4e16\u754c\uff01\u4eca\u5929\u662f2024\u5e741\u670831\u65e5\u3002", "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c\u3002\u30ab\u30bf\u30ab\u30ca \uff8a\uff9d\uff76\uff78", "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4 \u1112\u1161\u11ab",
    "\U00020000\U0002a6d6 \U0001d4d0\U0001d4d1 \U00010330 \u2200x\u2208\u211d: \u221a(x\u00b2)\u2265\u2211\u222b", "\u24b6\u24d1 \u2160\u2171 \u00aa\u00ba \u02b0 \u1d2c \ufb01 \ufdfa \uff21\uff42", "\u0b95\u0bca \u0d15\u0d4d\u0d37 \u1019\u103c\u1014\u103a\u1019\u102c \u10d2\u10d0\u10db\u10d0\u10e0\u10ef\u10dd\u10d1\u10d0 \u0540\u0561\u0575")
add("\U0001f600 \U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f1e9\U0001f1ea \u2764\ufe0f \u2600 1\ufe0f\u20e3", "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f \U0001fae0\U0001f9ff", "text\U0001f525text\U0001f525\U0001f525\U0001f525 ok\u2705", "\u2190\u2191\u2192\u2193 \u2588\u2591\u2592 \u250c\u2500\u2510 \u2022 \u00b7 \u2010\u2011\u2013")
add("\u2581", "\u2581x \u2581\u2581 y", "\ufffd \ufffe \uffff \ue000 \U000f0000 \U0010ffff", "\u0378 \u0530 \U0001fffe")
# Control characters: SmolLM2 has no token for some of them.
for c in list(range(0, 32)) + [127, 128, 133, 159]:
    add("a" + chr(c) + "b")
add("\x1b[31mred\x1b[0m", "\x00\x01\x02\x04\x06\x13\x14\x16\x1d", "bell\x07\x08back")
# What looks like a special token in a user's text. Not `</s>`: Gemma's file has it as a token of its
# own, an HTML tag like `</b>`, but llama.cpp takes it for an end of text and spells it out.
add("<|im_start|>user\nhi<|im_end|>", "<start_of_turn>user\nhi<end_of_turn>", "<bos><eos><pad><unk><s>", "<0x41><0x0A>", "<|endoftext|>x", "<unused0> [multimodal] <start_of_image>", "<|im_start", "im_start|>", "< |im_start|>", "<b>bold</b><i>x</i><h1></h1> <code>")
# Long words and random mixtures.
add("a" * 300, "ab" * 120, "lorem" * 40, "\u4e16" * 60, "\U0001f525" * 20, "pneumonoultramicroscopicsilicovolcanoconiosis Donaudampfschifffahrtsgesellschaft")
words = "the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one you were her all she there would their we him been has when who will more no if out so said what up its about into than them can only other new some could time these two may then do first any my now such like our over man me even most made after also did many before must through".split()
alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789    \n\t.,;:!?'\"()[]{}<>|/\\@#$%^&*-_=+~`\u00e9\u00df\u4e16\u0416\u05d0\U0001f600\u00a0"
for _ in range(60):
    add(" ".join(r.choice(words) for _ in range(r.randrange(3, 25))))
for _ in range(120):
    add("".join(r.choice(alphabet) for _ in range(r.randrange(1, 60))))
for _ in range(60):
    add("".join(chr(c) for c in (r.choice([r.randrange(0x20, 0x250), r.randrange(0x370, 0x2000), r.randrange(0x2000, 0xd800), r.randrange(0x1f000, 0x1fb00)]) for _ in range(r.randrange(1, 30)))))
add("")
pathlib.Path("lines.json").write_text(json.dumps(out, ensure_ascii=True))
print(len(out))
