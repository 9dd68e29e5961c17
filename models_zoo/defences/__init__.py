"""Defences of the savings, each as a policy on victims of the zoo: the contract holds for them."""
