"""What the compiler states about a model, for people and for programs: the same for every front
end.
"""

from ._diagnostics import CompilationRecord as CompilationRecord
from ._diagnostics import DiagnosticKind as DiagnosticKind
from ._diagnostics import DiagnosticLevel as DiagnosticLevel
from ._diagnostics import Path as Path
from ._diagnostics import records as records
from ._named import NamedGraph as NamedGraph
from ._named import NamedGroup as NamedGroup
from ._named import NamedRelation as NamedRelation
from ._named import groups_of as groups_of
from ._named import relations_of as relations_of
from ._report import CompilationReport as CompilationReport
