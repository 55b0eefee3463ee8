"""How HTML pages look."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto; max-width: 68rem;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid #ddd; }
th { font-weight: 600; } td.figure { white-space: nowrap; font-variant-numeric: tabular-nums; }
small { color: #666; display: block; max-width: 42rem; }
.better { color: #00694b; font-weight: 600; } .worse { color: #a33b00; font-weight: 600; }
figure { margin: 0 0 .6rem; } figcaption { font-size: .85rem; color: #444; }
img { max-width: 100%; height: auto; display: block; }
"""
