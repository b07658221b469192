# Writes pictures in another format. One line in (input, output, options of save as JSON), one line out.
import json, sys
from PIL import Image

for line in sys.stdin:
    path, output, options = line.rstrip("\n").split("\t")
    Image.open(path).convert("RGB").save(output, **json.loads(options))
    print("done", flush=True)
