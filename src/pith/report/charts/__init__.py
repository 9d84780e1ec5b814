"""Charts as SVG that takes its colours from the page and asks nothing of the network."""

from pith.report.charts.base import SHAPES, Chart, Style, chosen, styles
from pith.report.charts.costs import bytes_chart, memory_chart, time_chart
from pith.report.charts.curve import curve_charts
from pith.report.charts.depth import Maps, depth_maps
from pith.report.charts.quality import quality_chart
from pith.report.charts.search import search_chart

__all__ = [
    "SHAPES",
    "Chart",
    "Maps",
    "Style",
    "bytes_chart",
    "chosen",
    "curve_charts",
    "depth_maps",
    "memory_chart",
    "quality_chart",
    "search_chart",
    "styles",
    "time_chart",
]
