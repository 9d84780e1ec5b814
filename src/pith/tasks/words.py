"""Key words of the generated tasks: common English nouns, each one token of the built-in model's tokenizer."""

_NOUNS = """
acorn almond anchor ankle apple apron arrow attic badge bagel bamboo banana banjo barrel basket
beach beard beaver bench berry bicycle biscuit blanket blossom bonnet boots bottle bracelet branch
bread breeze brick bridge broom bucket butter cabin cactus camel canal candle canoe canyon carpet
carrot castle cattle cave cedar cellar cheese cherry chicken chimney circus cliff clover coconut
coffee copper coral cotton cousin cradle cricket crown cucumber curtain daisy desert diamond dinner
dolphin donkey dragon drawer drum eagle elbow elephant engine falcon farmer feather fiddle finger
flame flute forest fountain fox garden garlic ginger giraffe glove goose grape grass guitar hammer
harbor harvest helmet hill honey horse hotel island ivory jacket jelly jewel jungle kettle kitchen
kitten ladder lagoon lamp lantern lemon lettuce lily lion lizard lobster magnet mango maple marble
meadow melon mirror monkey moon mountain muffin mushroom napkin needle nest oak oasis ocean olive
onion orange orchard otter owl oyster paddle palace panda paper parrot peach peacock peanut pearl
pebble pelican pencil pepper piano picnic pigeon pillow pirate planet plum pocket pond pony potato
prairie prince puddle pumpkin puppy rabbit raccoon radio rainbow raven ribbon rice river robin
rocket rooster saddle sailor salad salmon sandal scarf school shadow shark sheep shell shovel silver
spider spinach spoon squirrel statue storm sugar summer sunset swan table teapot temple tiger
toast tomato tractor trumpet tulip turkey turtle umbrella valley velvet village violin wagon walnut
walrus whale wheat willow window winter wizard yogurt zebra
"""

KEY_WORDS: tuple[str, ...] = tuple(_NOUNS.split())
"""Distinct lower-case nouns; the tasks write them with one leading space."""
