"""Common things: the fifty prompts by which the model is judged, chosen before its training
began, and the names of the concepts that people ask for most. Strings alone."""

from __future__ import annotations

FIFTY = (
    "grinning face", "crying face", "angry face", "smiling face with sunglasses",
    "face with tears of joy", "sleeping face",
    "red heart", "blue heart", "green heart", "broken heart",
    "red apple", "banana", "grapes", "strawberry", "watermelon", "lemon",
    "dog face", "cat face", "pig face", "frog", "penguin", "spouting whale",
    "elephant", "butterfly", "tropical fish",
    "a car", "a bus", "airplane", "bicycle", "rocket", "sailboat",
    "flag of France", "flag of Japan", "flag of Germany", "flag of Canada",
    "sun", "cloud", "rainbow", "snowflake", "umbrella",
    "pizza", "hamburger", "french fries", "birthday cake", "ice cream", "bread",
    "soccer ball", "basketball", "tennis", "american football",
)  # fmt: skip

WANTED = frozenset(
    (
        *FIFTY,
        "automobile", "grinning face with big eyes", "beaming face with smiling eyes",
        "winking face", "smiling face with heart-eyes", "thinking face", "face blowing a kiss",
        "sad but relieved face", "loudly crying face", "hot face", "cold face", "partying face",
        "nerd face", "clown face", "skull", "ghost", "alien", "robot", "pile of poo",
        "grinning cat", "monkey face", "yellow heart", "purple heart", "black heart",
        "orange heart", "white heart", "pink heart", "green apple", "pear", "tangerine",
        "pineapple", "mango", "peach", "cherries", "kiwi fruit", "tomato", "coconut", "avocado",
        "eggplant", "potato", "carrot", "ear of corn", "broccoli", "mushroom", "cheese wedge",
        "egg", "cooking", "hot dog", "taco", "sandwich", "sushi", "soft ice cream", "doughnut",
        "cookie", "shortcake", "chocolate bar", "candy", "lollipop", "popcorn", "hot beverage",
        "beer mug", "wine glass", "glass of milk", "teacup without handle", "dog", "cat", "cow",
        "cow face", "pig", "horse", "horse face", "tiger face", "lion", "bear", "panda", "koala",
        "rabbit face", "mouse face", "fox", "wolf", "chicken", "duck", "owl", "eagle", "turtle",
        "snake", "dolphin", "whale", "shark", "octopus", "crab", "snail", "bug", "honeybee",
        "lady beetle", "spider", "unicorn", "dragon", "T-Rex", "giraffe", "zebra", "camel",
        "monkey", "gorilla", "hedgehog", "bat", "fish", "front-facing baby chick", "bird",
        "parrot", "peacock", "taxi", "police car", "fire engine", "ambulance", "delivery truck",
        "tractor", "train", "locomotive", "helicopter", "ship", "motorcycle", "kick scooter",
        "flying saucer", "trolleybus", "flag: France", "flag: Japan", "flag: Germany",
        "flag: Canada", "flag: Italy", "flag: Spain", "flag: United States",
        "flag: United Kingdom", "flag: China", "flag: Brazil", "flag: India", "flag: Sweden",
        "flag: Ireland", "flag: Mexico", "flag: Switzerland", "cloud with rain",
        "cloud with lightning", "high voltage", "snowman", "fire", "droplet", "water wave",
        "crescent moon", "full moon", "star", "glowing star", "umbrella with rain drops",
        "sun with face", "sun behind cloud", "globe showing Europe-Africa", "tornado", "baseball",
        "volleyball", "bowling", "boxing glove", "trophy", "sports medal", "skateboard", "skis",
        "bullseye", "video game", "game die", "house", "castle", "school", "hospital", "tent",
        "mountain", "volcano", "desert island", "Christmas tree", "evergreen tree",
        "deciduous tree", "palm tree", "cactus", "sunflower", "rose", "tulip", "cherry blossom",
        "four leaf clover", "maple leaf", "jack-o-lantern", "wrapped gift", "balloon",
        "party popper", "crown", "top hat", "glasses", "t-shirt", "jeans", "dress",
        "running shoe", "high-heeled shoe", "backpack", "handbag", "gem stone", "ring",
        "mobile phone", "laptop", "television", "camera", "light bulb", "books", "open book",
        "pencil", "scissors", "key", "locked", "hammer", "magnet", "bomb", "hourglass done",
        "alarm clock", "watch", "guitar", "trumpet", "violin", "drum", "musical keyboard",
        "musical note", "microphone", "telescope", "syringe", "pill", "bed", "chair", "door",
        "toilet", "bathtub", "money bag", "envelope", "package", "bell", "hundred points",
        "check mark button", "cross mark", "red question mark", "warning", "stop sign",
        "recycling symbol", "thumbs up", "thumbs down", "clapping hands", "waving hand",
        "victory hand", "flexed biceps", "eyes", "mouth", "ear", "nose", "brain", "tooth",
        "footprints", "person", "baby", "Santa Claus", "princess", "ninja",
    )
)  # fmt: skip
SKINNED = (  # shown in every skin tone
    "thumbs up", "waving hand", "astronaut", "baby", "folded hands", "person running",
)  # fmt: skip
DYED = (  # shown in every colour
    "cat", "apple", "car", "elephant", "ghost", "tulip", "butterfly", "umbrella",
)  # fmt: skip
