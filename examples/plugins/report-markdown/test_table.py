import unittest

from table import table


class TestTable(unittest.TestCase):
    def test_a_cell_cannot_break_the_table(self):
        self.assertEqual(table([[("model", "a|b\nc")]]), "| model |\n| --- |\n| a\\|b c |\n")


if __name__ == "__main__":
    unittest.main()
