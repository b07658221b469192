# Renders as one would with Pillow: crop, LANCZOS, WebP method 4. One line in (input, quality, output), one line out.
import io, sys, time
from PIL import Image

for line in sys.stdin:
    path, quality, output = line.rstrip("\n").split("\t")
    source = open(path, "rb").read()
    began = time.process_time_ns()
    image = Image.open(io.BytesIO(source))
    image.load()
    if image.mode != "RGB":
        image = image.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    if image.size != (side, side):
        image = image.crop((left, top, left + side, top + side))
    if side != 1024:
        image = image.resize((1024, 1024), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    image.save(encoded, "WEBP", quality=float(quality), method=4)
    spent = time.process_time_ns() - began
    open(output, "wb").write(encoded.getvalue())
    print(spent, flush=True)
