"""Pictures of captions for training: text, backgrounds, fonts and damage in; pictures with labels out."""
