"""The clients that people have, against a server: ADDRESS PNG, the PNG being that of `sample`
for "red heart", seed 3, 5 steps."""

import base64
import io
import json
import sys
import urllib.request

import openai
from huggingface_hub import InferenceClient
from PIL import Image

address, sampled = sys.argv[1:3]
expected = Image.open(sampled).convert("RGB").tobytes()
ours = {"seed": 3, "steps": 5}


def same(data, what):
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    assert picture.tobytes() == expected, f"{what}: another picture"
    print(f"{what}: the picture of sample")


client = openai.OpenAI(base_url=f"{address}/v1", api_key="none")
name = client.models.list().data[0].id
answer = client.images.generate(model=name, prompt="red heart", n=2, extra_body=ours)
assert len(answer.data) == 2 and answer.size == "64x64" and answer.usage.output_tokens == 512
same(base64.b64decode(answer.data[0].b64_json), "openai generate")

larger = client.images.generate(model=name, prompt="red heart", size="1024x1024", extra_body=ours)
assert Image.open(io.BytesIO(base64.b64decode(larger.data[0].b64_json))).size == (1024, 1024)

events = list(
    client.images.generate(
        model=name, prompt="red heart", stream=True, partial_images=2, extra_body=ours
    )
)
kinds = [event.type for event in events]
assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"], kinds
assert [event.partial_image_index for event in events[:2]] == [0, 1]
same(base64.b64decode(events[-1].b64_json), "openai stream")

with open(sampled, "rb") as file:
    png = file.read()
mask = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
mask.paste((0, 0, 0, 0), (0, 32, 64, 64))
holes = io.BytesIO()
mask.save(holes, "PNG")
for image in [("heart.png", png), [("heart.png", png)]]:
    edited = client.images.edit(
        model=name,
        image=image,
        mask=("mask.png", holes.getvalue()),
        prompt="blue heart",
        extra_body=ours,
    )
    picture = Image.open(io.BytesIO(base64.b64decode(edited.data[0].b64_json))).convert("RGB")
    assert picture.crop((0, 0, 64, 32)).tobytes() == expected[: 64 * 32 * 3]
    assert picture.tobytes() != expected
print("openai edit: only the transparent part is redrawn")

for wrong in [{"background": "transparent"}, {"output_format": "webp"}, {"n": 11}]:
    try:
        client.images.generate(model=name, prompt="x", **wrong)
        raise SystemExit(f"{wrong} was taken")
    except openai.BadRequestError as error:
        assert error.param == next(iter(wrong)), error.param
print("openai errors: by their field")

hub = InferenceClient(f"{address}/api/hf")
picture = hub.text_to_image("red heart", num_inference_steps=5, seed=3)
assert picture.convert("RGB").tobytes() == expected
print("huggingface_hub text_to_image: the picture of sample")

body = json.dumps({"prompt": "red heart", "seed": 3, "steps": 5}).encode()
request = urllib.request.Request(
    f"{address}/sdapi/v1/txt2img", body, {"Content-Type": "application/json"}
)
answer = json.load(urllib.request.urlopen(request))
same(base64.b64decode(answer["images"][0]), "sdapi txt2img")
