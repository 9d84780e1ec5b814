"""What whoever has read widely knows: short questions about the world, each with one short answer."""

from __future__ import annotations

from collections.abc import Iterator

ASKED = {
    "What is the capital of {}?": (
        "France: Paris, Japan: Tokyo, Italy: Rome, Spain: Madrid, Germany: Berlin, Russia: Moscow, Egypt: Cairo, "
        "England: London, Greece: Athens, Austria: Vienna, Portugal: Lisbon, Poland: Warsaw, Hungary: Budapest, "
        "Ireland: Dublin, Norway: Oslo, Sweden: Stockholm, Denmark: Copenhagen, Finland: Helsinki, Belgium: Brussels, "
        "China: Beijing, South Korea: Seoul, Thailand: Bangkok, Cuba: Havana, Canada: Ottawa, Peru: Lima, "
        "Kenya: Nairobi, Turkey: Ankara, Iran: Tehran, Iraq: Baghdad, Syria: Damascus, Lebanon: Beirut, "
        "Argentina: Buenos Aires, Australia: Canberra, New Zealand: Wellington, Colombia: Bogota, Afghanistan: Kabul, "
        "Nepal: Kathmandu, Jamaica: Kingston, Ukraine: Kyiv, Romania: Bucharest, Bulgaria: Sofia, Serbia: Belgrade, "
        "Croatia: Zagreb, Iceland: Reykjavik, Scotland: Edinburgh, Wales: Cardiff, Vietnam: Hanoi, Libya: Tripoli"
    ),
    "Which chemical element has the symbol {}?": (
        "H: Hydrogen, He: Helium, C: Carbon, N: Nitrogen, O: Oxygen, F: Fluorine, Ne: Neon, Na: Sodium, "
        "Mg: Magnesium, Al: Aluminum, Si: Silicon, P: Phosphorus, S: Sulfur, Cl: Chlorine, K: Potassium, Ca: Calcium, "
        "Fe: Iron, Cu: Copper, Zn: Zinc, Ag: Silver, Sn: Tin, I: Iodine, Au: Gold, Hg: Mercury, Pb: Lead, "
        "U: Uranium, Li: Lithium, Ni: Nickel, Pt: Platinum, Ti: Titanium"
    ),
    "In which country is {}?": (
        "the Eiffel Tower: France, the Taj Mahal: India, the Colosseum: Italy, Machu Picchu: Peru, "
        "Mount Fuji: Japan, the Great Sphinx: Egypt, Stonehenge: England, the Kremlin: Russia, Angkor Wat: Cambodia, "
        "the Acropolis: Greece, the Brandenburg Gate: Germany, the Great Wall: China, the Louvre: France, "
        "the city of Mumbai: India, the city of Venice: Italy, the city of Kyoto: Japan, the city of Barcelona: Spain, "
        "the city of Munich: Germany, the city of Shanghai: China, the city of Toronto: Canada, "
        "the city of Sydney: Australia, the city of Istanbul: Turkey, the city of Geneva: Switzerland, "
        "the city of Amsterdam: Netherlands, the city of Marrakesh: Morocco, the city of Sao Paulo: Brazil"
    ),
    "What is the opposite of {}?": (
        "hot: cold, up: down, left: right, day: night, black: white, north: south, east: west, true: false, "
        "buying: selling, full: empty, high: low, wet: dry, early: late, inside: outside, push: pull, good: bad, "
        "love: hate, war: peace, life: death, heaven: hell, winter: summer, strong: weak, rich: poor, thick: thin"
    ),
    "Who wrote {}?": (
        "Hamlet: Shakespeare, Oliver Twist: Dickens, Pride and Prejudice: Austen, "
        "War and Peace: Tolstoy, Crime and Punishment: Dostoevsky, Don Quixote: Cervantes, "
        "Moby-Dick: Melville, The Odyssey: Homer, Les Miserables: Hugo, Frankenstein: Shelley, "
        "Dracula: Stoker, Nineteen Eighty-Four: Orwell, The Great Gatsby: Fitzgerald, "
        "The Adventures of Tom Sawyer: Twain, Treasure Island: Stevenson, "
        "Alice's Adventures in Wonderland: Carroll, On the Origin of Species: Darwin, "
        "The Divine Comedy: Dante, Faust: Goethe, The Hobbit: Tolkien"
    ),
}
"""Questions by their form; what stands in the gap of each, and its answer."""


def questions() -> Iterator[tuple[str, str, str]]:
    """Yield the form of each question, the question, and its answer."""
    for form, pairs in ASKED.items():
        for pair in pairs.split(", "):
            gap, _, answer = pair.partition(": ")
            yield form, form.format(gap), answer
