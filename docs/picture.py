"""Draws docs/window.svg: what one SNV changes in DeepSEA, layer by layer.

    python docs/picture.py

A value of a layer depends on a few inputs, so a SNV changes few values. How many follows from the
kernel sizes and strides of the layers, which are those of the published net.
"""

from pathlib import Path

WINDOW, SNV = 1_000, 499
#: Layers before the linear ones: name, kernel size, stride.
LAYERS = [
    ("convolution 1", 8, 1),
    ("max pool", 4, 4),
    ("convolution 2", 8, 1),
    ("max pool", 4, 4),
    ("convolution 3", 8, 1),
]
TARGETS = 919

LEFT, RIGHT, TOP, STEP, BAR = 150, 690, 84, 31, 15
STYLE = """
    text { font: 13px system-ui, -apple-system, 'Segoe UI', sans-serif; fill: #24292f; }
    .title { font-weight: 600; font-size: 15px; }
    .small { font-size: 12px; fill: #57606a; }
    .base { font-family: ui-monospace, 'DejaVu Sans Mono', monospace; font-size: 14px; }
    .changed { fill: #d1450b; font-weight: 700; }
    .same { fill: #d0d7de; }
    .line { stroke: #d1450b; stroke-width: 1; stroke-dasharray: 2 3; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .small { fill: #9198a1; }
      .changed { fill: #ff8a50; }
      .same { fill: #3d444d; }
      .line { stroke: #ff8a50; }
    }
"""


def changed_ranges() -> list[tuple[str, int, int, int]]:
    """Return (name, values, first changed, last changed) of the window and each layer."""
    length, first, last = WINDOW, SNV, SNV
    found = [("window", length, first, last)]
    for name, kernel, stride in LAYERS:
        length = (length - kernel) // stride + 1
        first = max(-(-(first - kernel + 1) // stride), 0)
        last = min(last // stride, length - 1)
        found.append((name, length, first, last))
    return found


def draw() -> str:
    """Return the picture as SVG."""
    layers = changed_ranges()
    scale = RIGHT - LEFT
    centre = LEFT + scale * (SNV + 0.5) / WINDOW
    bottom = TOP + STEP * (len(layers) + 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 820 {bottom + 42}" role="img" '
        'aria-label="What one SNV changes in DeepSEA, layer by layer">',
        f"<style>{STYLE}</style>",
        '<text class="title" x="12" y="22">What one SNV changes in DeepSEA</text>',
        '<text class="small" x="12" y="40">In colour: values that differ between the reference '
        "and the alternate window. The others are computed once.</text>",
        f'<text class="base" x="{centre - 22:.1f}" y="{TOP - 12}" text-anchor="end">'
        "…ACGTTAGCC</text>",
        f'<text class="base changed" x="{centre:.1f}" y="{TOP - 12}" text-anchor="middle">'
        "G→T</text>",
        f'<text class="base" x="{centre + 22:.1f}" y="{TOP - 12}">ACGATTGCA…</text>',
        f'<line class="line" x1="{centre:.1f}" x2="{centre:.1f}" y1="{TOP - 6}" '
        f'y2="{bottom - 6}"/>',
    ]
    for row, (name, values, first, last) in enumerate(layers):
        y = TOP + STEP * row
        x, width = LEFT + scale * first / values, scale * (last - first + 1) / values
        parts += [
            f'<text x="{LEFT - 12}" y="{y + 12}" text-anchor="end">{name}</text>',
            f'<rect class="same" x="{LEFT}" y="{y}" width="{scale}" height="{BAR}" rx="3"/>',
            f'<rect class="changed" x="{x:.1f}" y="{y}" width="{max(width, 2):.1f}" '
            f'height="{BAR}"/>',
            f'<text x="{RIGHT + 12}" y="{y + 12}">{last - first + 1} of {values:,}</text>',
        ]
    y = TOP + STEP * len(layers)
    parts += [
        f'<text x="{LEFT - 12}" y="{y + 12}" text-anchor="end">targets</text>',
        f'<rect class="changed" x="{LEFT}" y="{y}" width="{scale}" height="{BAR}" rx="3"/>',
        f'<text x="{RIGHT + 12}" y="{y + 12}">{TARGETS} of {TARGETS}</text>',
        f'<text class="small" x="{LEFT}" y="{bottom + 14}">diff = p(alternate) \u2212 p(reference) '
        "for each target, averaged over both strands; score = the largest |diff|</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("window.svg").write_text(draw(), encoding="utf-8")
