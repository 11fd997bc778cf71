"""A logger of tables that a resumed run continues."""

import csv
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from escnn_attn.files import write_atomically


class ResumableCSVLogger(CSVLogger):
    """`CSVLogger` that continues the table of an earlier run in the folder, where Lightning's deletes it.

    Rows of steps that are made again, such as those of the epoch within which the earlier run was interrupted, are replaced.
    Arguments as of `CSVLogger`.
    """

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None:
            self._experiment = _ContinuingWriter(self.log_dir)
        return self._experiment  # pyright: ignore[reportReturnType]


class _ContinuingWriter(ExperimentWriter):
    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self.path = Path(self.metrics_file_path)
        self.continued = False

    def _check_log_dir_exists(self) -> None:
        """Lightning's writer deletes an earlier table here."""

    def save(self) -> None:
        if self.metrics and not self.continued:
            self.continued = True
            if self.path.exists():
                self._keep_rows_before(min(row["step"] for row in self.metrics))
        super().save()

    def _keep_rows_before(self, step: float) -> None:
        rows = [row for row in self._rows() if float(row["step"]) < step]
        self.metrics_keys = sorted({key for row in rows for key in row})
        self._write(rows)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        self._write(self._rows(), fieldnames)

    def _rows(self) -> list[dict[str, Any]]:
        """Rows of the table, without one that a kill cut short."""
        lines = self.path.read_text().splitlines(keepends=True)
        return list(csv.DictReader(line for line in lines if line.endswith("\n")))

    def _write(self, rows: list[dict[str, Any]], names: list[str] | None = None) -> None:
        def write(aside: Path) -> None:
            with aside.open("w", newline="") as file:
                writer = csv.DictWriter(file, names or self.metrics_keys)
                writer.writeheader()
                writer.writerows(rows)

        write_atomically(self.path, write)
