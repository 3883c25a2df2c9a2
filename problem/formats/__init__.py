"""The file formats of serving systems: recorded loads in, maps in and out; one module per format."""

from problem.formats.maps import MAP_FORMATS, read_map, write_map
from problem.formats.recorded import LOAD_FORMATS, read

__all__ = ["LOAD_FORMATS", "MAP_FORMATS", "read", "read_map", "write_map"]
