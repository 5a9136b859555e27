"""New pictures to predict: found, looked into before anything is launched, and handed out in blocks. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from trainers.interface import FORMULA, DataError
from trainers.reading.likeness import explain_mismatch, find_suffix
from trainers.reading.picture_files import PICTURE_SUFFIXES, PictureFolder, collect_left_out, is_wanted
from trainers.reading.pictures import UnusableError
from trainers.unet_segmentation.config import Config, DataConfig
from trainers.unet_segmentation.rows.folders import name_masks
from trainers.unet_segmentation.rows.pictures import decode_picture, read_file

PLACES = "a picture or a folder of pictures"
_THREADS, _MOST_NAMED = 4, 5


@dataclass(frozen=True)
class NewRows:
    """Pictures to predict.

    Attributes:
        path: the picture, or the folder of pictures.
        masks: folder in which their true masks may be; None: there is none.
        data: of the models.
        batch_rows: a picture is predicted by itself, so any portion has the same bits.
        masks_are_named: by the user, who expects some.
    """

    PROBLEMS: ClassVar = "a true mask that cannot be used, and were not scored"

    path: Path
    masks: Path | None
    data: DataConfig
    batch_rows: int = 1
    masks_are_named: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user."""
        folders = filter(None, (self.path if self.path.is_dir() else None, self.masks))
        return collect_left_out({folder.name: PictureFolder(folder).left_out for folder in folders})[0]

    def check(self) -> int:
        """Decodes every picture.

        Returns:
            How many there are.

        Raises:
            DataError: there is none, names collide, or one cannot be used; all are named.
        """
        pairs, problems = self._find(), []
        if self.masks_are_named and self.masks is not None and not any(mask for _, _, mask in pairs):
            raise DataError(self._explain_no_mask(self.masks, [row_id for row_id, _, _ in pairs]))
        wanted = {row_id for row_id, _, _ in pairs}
        for folder in filter(None, (self.path if self.path.is_dir() else None, self.masks)):
            several = PictureFolder(folder).several
            problems += [
                f"{row_id}: {', '.join(sorted(names))} in {folder.name}/ have one name"
                for row_id, names in sorted(several.items())
                if row_id in wanted
            ]
        problems += [
            f"{row_id}: a spreadsheet would run this name as a formula"
            for row_id, _, _ in pairs
            if FORMULA.search(row_id)
        ]
        with ThreadPoolExecutor(_THREADS) as pool:
            problems += filter(None, pool.map(self._look_into, [picture for _, picture, _ in pairs]))
        if problems:
            more = f"\n  … and {len(problems) - _MOST_NAMED} more" if len(problems) > _MOST_NAMED else ""
            listed = "\n  ".join(problems[:_MOST_NAMED])
            raise DataError(f"{self.path} cannot be used:\n  {listed}{more}\nCorrect these files, or remove them")
        return len(pairs)

    def read(self, num_rows: int) -> Iterator[pa.Table]:
        """Names and paths, in the order of the names: columns id, picture and mask (null: none)."""
        pairs = self._find()
        for start in range(0, len(pairs), num_rows):
            cells = zip(*pairs[start : start + num_rows], strict=True)
            yield pa.table(
                {name: pa.array(list(c), pa.string()) for name, c in zip(("id", "picture", "mask"), cells, strict=True)}
            )

    def _find(self) -> list[tuple[str, str, str | None]]:
        if self.path.is_dir():
            folder = PictureFolder(self.path)
            paths = [folder.root / f"{row_id}{folder.suffix_of[row_id]}" for row_id in sorted(folder.suffix_of)]
        else:
            paths = [self.path]
        masks = PictureFolder(self.masks) if self.masks else None
        mask_of = (
            {} if masks is None else {name: name for name in masks.suffix_of} | name_masks(masks, self.data.mask_suffix)
        )
        return [
            (path.stem, str(path), str(masks.find(mask_of[path.stem])) if masks and path.stem in mask_of else None)
            for path in paths
        ]

    def _explain_no_mask(self, masks: Path, ids: list[str]) -> str:
        folder = PictureFolder(masks)
        suffix, num = find_suffix(ids, folder.suffix_of)
        cause = (
            f"{num:,} have a mask with {suffix} behind the name" if suffix else explain_mismatch(ids, folder.suffix_of)
        )
        shown = ", ".join(sorted(folder.suffix_of)[:_MOST_NAMED]) or "no picture"
        return (
            f"--masks={masks}: none of {len(ids):,} pictures has a mask of its name there; the folder has {shown}"
            + (f" ({cause})" if cause else "")
            + ". A mask has its picture's name, but for the ending and what data.mask_suffix of the run adds"
        )

    def _look_into(self, picture: str) -> str:
        try:
            decode_picture(read_file(Path(picture)), self.data.channels, self.data.picture_rules)
        except (UnusableError, OSError) as error:
            return f"{Path(picture).name} {error}"
        return ""


def find_new_rows(configs: Sequence[Config], place: Path, truth: Path | None = None) -> NewRows:
    """Finds the pictures and, where there are any, their masks.

    Args:
        configs: of the models that predict.
        place: a picture; a folder of pictures, whose masks lie in `data.masks` or `data.test_masks` beside it; or a
            folder with such folders in it.
        truth: the folder of masks, if it is another.

    Raises:
        DataError: there is no picture, or no such folder of masks.
    """
    data, place = configs[0].data, place.absolute()
    if truth is not None and not truth.is_dir():
        raise DataError(f"--masks={truth}: no such folder")
    if not place.is_dir():
        if not place.is_file() or not is_wanted(place.name):
            raise DataError(
                f"{place}: {'expected another file' if place.is_file() else 'no such file'}; set --data to a picture "
                f"that ends in {', '.join(PICTURE_SUFFIXES)}, or a "
                "folder of them"
            )
        return NewRows(place, truth or _find_masks(data, place.parent), data, masks_are_named=truth is not None)
    if not PictureFolder(place).suffix_of:
        inside = [place / name for name in (data.test_images, data.images) if name and (place / name).is_dir()]
        if not inside or not PictureFolder(inside[0]).suffix_of:
            raise DataError(f"{place} holds no picture; expected files that end in {', '.join(PICTURE_SUFFIXES)}")
        place = inside[0]
    return NewRows(place, truth or _find_masks(data, place), data, masks_are_named=truth is not None)


def _find_masks(data: DataConfig, images: Path) -> Path | None:
    """The folder of masks that belongs to a folder of pictures."""
    name = data.test_masks if images.name == data.test_images else data.masks
    beside = images.parent / name
    return beside.absolute() if name and beside.is_dir() and beside != images else None
