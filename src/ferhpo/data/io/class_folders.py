"""Where the classes stand in a folder or zip: [top/]train/<class>/file, or [top/]<class>/file.

The folder names decide the split; no name of a file is looked at here.
"""

from dataclasses import dataclass, field

from ferhpo.data.dataset import TEST, TRAIN, VAL
from ferhpo.data.io.faults import Faults
from ferhpo.data.io.files import Tree
from ferhpo.errors import DataError

SPLIT_FOLDERS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VAL,
    "valid": VAL,
    "validation": VAL,
    "test": TEST,
    "testing": TEST,
}


@dataclass
class ClassFolders:
    """Files in classes, in the order of split, class and name. The split is None in a flat folder of classes.

    classes: every (split, class) that has a folder, also an empty one
    split_folders: the name of each split's folder as it stands
    """

    names: list[str] = field(default_factory=list)
    class_of: list[str] = field(default_factory=list)
    split_of: list[int | None] = field(default_factory=list)
    classes: list[tuple[int | None, str]] = field(default_factory=list)
    split_folders: dict[int | None, str] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)

    def add_empty(self, faults: Faults) -> None:
        """Note the class folders without a file."""
        for folder in self.empty:
            faults.add("empty", f"{folder} holds no image; fill it, or take its class out of every split", folder)


def find_class_folders(where: str, tree: Tree) -> ClassFolders:
    """Find the folders of classes. Raises DataError if there are none, or two data sets beside each other."""
    by_parent: dict[str, list[str]] = {}
    for folder in tree.folders:
        by_parent.setdefault(folder.rpartition("/")[0], []).append(folder)
    files: dict[str, list[str]] = {}
    for name in tree.names:
        files.setdefault(name.rpartition("/")[0], []).append(name)

    split_folders = [
        folder for folder in tree.folders if _last(folder).lower() in SPLIT_FOLDERS and folder in by_parent
    ]
    tops = sorted({folder.rpartition("/")[0] for folder in split_folders})
    if len(tops) > 1:
        both = " and ".join(top or "its top" for top in tops[:2])
        raise DataError(where, [f"it holds two data sets, in {both}; set data.path to one of them"])
    found = ClassFolders()
    if split_folders:
        sources = sorted((SPLIT_FOLDERS[_last(folder).lower()], folder) for folder in split_folders)
        for code, folder in sources:
            if code in found.split_folders:
                raise DataError(where, [f"{found.split_folders[code]} and {folder} mean the same split; keep one"])
            found.split_folders[code] = folder
    else:
        top = ""
        while len(by_parent.get(top, [])) == 1 and by_parent[top][0] in by_parent and not files.get(top):
            top = by_parent[top][0]  # a lone folder around everything, as zips often have
        found.split_folders[None] = top
    for split, parent in found.split_folders.items():
        for folder in by_parent.get(parent, []):
            found.classes.append((split, _last(folder)))
            if not files.get(folder):
                found.empty.append(folder)
            for name in files.get(folder, []):
                found.names.append(name)
                found.class_of.append(_last(folder))
                found.split_of.append(split)
    if not found.classes:
        raise DataError(
            where, ["it holds no folders of classes; put the images of each class into a folder of its name"]
        )
    return found


def _last(folder: str) -> str:
    return folder.rpartition("/")[2]
